"""The bookkeeping of cuts inside the language model: which positions of the prompt each decoder layer sees.

Positions are chosen on the device; how many are kept is known on the host all along, so that nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.positions import kept_positions
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.pruning.in_llm import surviving_positions
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import InLLMPruner


def check_pruners(family: Family, pruners: Sequence[InLLMPruner]) -> None:
    """Refuse cuts that the model has no layer for.

    Raises:
        UserError: a pruner's layer does not exist, or is below ``family.first_cut``: nothing ranks the tokens of layer
            0, and models that add visual features to their first layers need all tokens there.
    """
    depth, first = len(family.layers), family.first_cut
    for pruner in pruners:
        if not first <= pruner.layer < depth:
            raise UserError(
                f"cannot prune at layer {pruner.layer}: the language model has layers 0 … {depth - 1}"
                + (f" and adds visual features up to layer {first - 1}" if first > 1 else ""),
                f"choose layer {first} … {depth - 1}; scores come from the attention of the layer below",
            )


@dataclass(frozen=True, eq=False)
class KeptPositions:
    """What a decoder layer sees of B prompts of L tokens.

    ``positions`` (B, M) int64 are indices into the whole prompt, ascending; samples that keep fewer than M have fillers
    at the left. ``real`` (B, M) bool is False for fillers and padding, and ``ragged`` says whether there are any.
    ``visual`` counts each sample's visual tokens.
    """

    positions: torch.Tensor
    real: torch.Tensor
    ragged: bool
    visual: tuple[int, ...]


class Cuts:
    """The cuts through one batch of prompts, made one after the other while the prefill runs.

    Args:
        family: the model.
        pruners: any number at any layers; several at one layer are applied one after the other.
        prompt: the prompts.

    Raises:
        UserError: as for `check_pruners`.
    """

    def __init__(self, family: Family, pruners: Sequence[InLLMPruner], prompt: Prompt) -> None:
        check_pruners(family, pruners)
        self._prompt, self._visual, self._text = prompt, prompt.visual, prompt.text_counts
        self._pruners: dict[int, list[InLLMPruner]] = {}
        for pruner in sorted(pruners, key=lambda p: p.layer):
            self._pruners.setdefault(pruner.layer, []).append(pruner)
        batch, length = prompt.visual.shape
        everything = torch.arange(length, device=prompt.visual.device).expand(batch, -1)
        self._embedded: dict[KeptPositions, torch.Tensor] = {}
        self.scores_finite: list[torch.Tensor] = []  # () bool of each cut: read once a token is known anyway
        self._kept = {0: KeptPositions(everything, prompt.attention_mask.bool(), prompt.padded, prompt.visual_counts)}

    @property
    def layers(self) -> list[int]:
        """The layers from which on the prompt is shorter, ascending."""
        return list(self._pruners)

    def at(self, layer: int) -> KeptPositions:
        """What ``layer`` sees, once all cuts up to it are made."""
        return self._kept[max(first for first in self._kept if first <= layer)]

    def cut(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float, mask: object) -> torch.Tensor:
        """Rank the visual tokens by the attention of the layer below and keep the best.

        Args:
            layer: first layer that sees fewer tokens, one of `layers`.
            query: (B, H, M, d) of ``layer − 1``, after rotary embedding.
            key: (B, G, M, d), as ``query``.
            scale: factor on the logits.
            mask: what that layer's attention got; anything but a tensor counts as none.

        Returns:
            (B, K) int64: the kept indices into the sequence that ``layer − 1`` saw, ascending.
        """
        before = self.at(layer - 1)
        device = self._visual.device  # the bookkeeping stays with the prompt, whatever device a layer is on
        visual, real, counts = self._visual.gather(1, before.positions), before.real, before.visual
        keep = torch.arange(visual.shape[1], device=device).expand_as(visual)
        for pruner in self._pruners[layer]:
            scores = pruner.score(query, key, scale, mask if isinstance(mask, torch.Tensor) else None).to(device)
            ranked = scores.gather(1, keep)
            self.scores_finite.append((ranked.isfinite() | ~(visual & real)).all())
            counts = tuple(kept_count(count, pruner.ratio, pruner.tokens) for count in counts)
            lengths = [t + v for t, v in zip(self._text, counts, strict=True)]
            chosen, real = surviving_positions(ranked, visual, real, lengths)
            keep, visual = keep.gather(1, chosen), visual.gather(1, chosen)
        ragged = min(lengths) < keep.shape[1]
        self._kept[layer] = KeptPositions(before.positions.gather(1, keep), real, ragged, counts)
        return keep

    def embedded(self, layer: int) -> torch.Tensor:
        """(B, M) or (P, B, M): the positions that the model embeds for what ``layer`` sees, by `Prompt.numbering`."""
        kept = self.at(layer)
        if kept not in self._embedded:
            self._embedded[kept] = self._numbers(kept)
        return self._embedded[kept]

    def _numbers(self, kept: KeptPositions) -> torch.Tensor:
        prompt = self._prompt
        axes = prompt.positions.shape[:-1]
        numbers = prompt.positions.gather(-1, kept.positions.expand(*axes, -1))
        if kept is self._kept[0] or prompt.numbering in (None, "original"):
            return numbers
        for sample, (text, visual) in enumerate(zip(self._text, kept.visual, strict=True)):
            left, padding = text + visual, prompt.positions.shape[-1] - prompt.lengths[sample]
            before = prompt.positions[..., sample, padding:].reshape(-1, prompt.lengths[sample])
            sources = kept.positions[sample, -left:] - padding
            new = kept_positions(prompt.numbering, before, sources, prompt.images[sample])
            numbers[..., sample, -left:] = new.view(*axes[:-1], left)
        return numbers

    @property
    def renumbers(self) -> bool:
        """Whether tokens have other positions behind a cut than before it."""
        return bool(self._pruners) and self._prompt.numbering not in (None, "original")

    def visual_in_layer(self, layer: int) -> torch.Tensor:
        """(B, L) bool: the visual tokens of the prompt that ``layer`` sees."""
        kept = self.at(layer)
        alive = torch.zeros(self._visual.shape, dtype=torch.int8, device=self._visual.device)
        alive.scatter_reduce_(1, kept.positions, kept.real.to(torch.int8), "amax")
        return alive.bool() & self._visual
