"""The bookkeeping of cuts inside the language model: which positions of the prompt each decoder layer sees.

Positions are chosen on the device; how many are kept is known on the host all along, so that nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.modules import copy_to
from fopru_graph.lvlm.inputs.positions import kept_positions
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.pruning.depth import layer_at
from fopru_graph.pruning.in_llm import surviving_positions
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import InLLMPruner, LayerView


def resolved(pruner: InLLMPruner, family: Family) -> InLLMPruner:
    """The pruner with its layer and what it reads as numbers of the model's layers; −1 is what layer 0 gets.

    A share of the depth names ``family.first_cut`` at least, so that a shallow model refuses none.

    Raises:
        UserError: the layer does not exist, or is below ``family.first_cut``: nothing ranks the tokens of layer 0, and
            models that add visual features to their first layers need all tokens there. Or the pruner reads what is
            not there yet.
    """
    depth, first = len(family.layers), family.first_cut
    layer = layer_at(pruner.layer, depth)
    if isinstance(pruner.layer, float):
        layer = max(first, layer)
    if not first <= layer < depth:
        raise UserError(
            f"cannot prune at layer {layer}: the language model has layers 0 … {depth - 1}"
            + (f" and adds visual features up to layer {first - 1}" if first > 1 else ""),
            f"choose layer {first} … {depth - 1}; scores come from the attention of the layer below",
        )
    reads = tuple(read + layer if read < 0 else read for read in pruner.reads)
    for asked, read in zip(pruner.reads, reads, strict=True):
        if not -1 <= read < layer:
            raise UserError(
                f"a pruner at layer {layer} cannot read the hidden states after layer {asked}",
                f"name layers 0 … {layer - 1} in reads, or count from the cut: -1 … {-layer - 1}",
            )
    return replace(pruner, layer=layer, reads=reads)


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
        UserError: as for `resolved`.
    """

    def __init__(self, family: Family, pruners: Sequence[InLLMPruner], prompt: Prompt) -> None:
        self._prompt, self._visual, self._text = prompt, prompt.visual, prompt.text_counts
        self._pruners: dict[int, list[InLLMPruner]] = {}
        for pruner in sorted((resolved(each, family) for each in pruners), key=lambda p: p.layer):
            self._pruners.setdefault(int(pruner.layer), []).append(pruner)
        batch, length = prompt.visual.shape
        everything = torch.arange(length, device=prompt.visual.device).expand(batch, -1)
        self._embedded: dict[KeptPositions, torch.Tensor] = {}
        self._states: dict[int, torch.Tensor] = {}  # hidden states after layers that pruners read
        self.scores_finite: list[torch.Tensor] = []  # () bool of each cut: read once a token is known anyway
        self._kept = {0: KeptPositions(everything, prompt.attention_mask.bool(), prompt.padded, prompt.visual_counts)}

    @property
    def layers(self) -> list[int]:
        """The layers from which on the prompt is shorter, ascending."""
        return list(self._pruners)

    def at(self, layer: int) -> KeptPositions:
        """What ``layer`` sees, once all cuts up to it are made."""
        return self._kept[max(first for first in self._kept if first <= layer)]

    @property
    def reads(self) -> frozenset[int]:
        """The layers after which hidden states are kept for pruners that read them, see `read`."""
        return frozenset(self._reads_after(0))

    def read(self, layer: int, hidden: torch.Tensor) -> None:
        """Keep the hidden states (B, M, E) after a layer of `reads`, until the last pruner that reads them has.

        After layer −1 are those that layer 0 gets.
        """
        self._states[layer] = hidden

    def cut(self, layer: int, attention: Attention, hidden: torch.Tensor) -> torch.Tensor:
        """Choose the visual tokens that ``layer`` sees.

        Args:
            layer: first layer that sees fewer tokens, one of `layers`.
            attention: of ``layer − 1``; a mask that is no tensor counts as none.
            hidden: (B, M, E) after ``layer − 1``.

        Returns:
            (B, K, E): the hidden states that ``layer`` gets, in ascending order of their places.
        """
        before = self.at(layer - 1)
        device = self._visual.device  # the bookkeeping stays with the prompt, whatever device a layer is on
        visual, real, counts = self._visual.gather(1, before.positions), before.real, before.visual
        keep = torch.arange(visual.shape[1], device=device).expand_as(visual)
        for pruner in self._pruners[layer]:
            view = self._view(layer, pruner, attention, hidden, keep, visual & real, counts)
            scores = pruner.score(view).to(device)
            ranked = scores.gather(1, keep)
            if scores.dtype == torch.bool:
                counts = tuple((ranked & visual & real).sum(1).tolist())
                ranked = ranked.float()
            else:
                self.scores_finite.append((ranked.isfinite() | ~(visual & real)).all())
                counts = _budget(pruner, counts)
            lengths = [t + v for t, v in zip(self._text, counts, strict=True)]
            chosen, real = surviving_positions(ranked, visual, real, lengths)
            keep, visual = keep.gather(1, chosen), visual.gather(1, chosen)
            if pruner.merge is not None:
                hidden = _merged(view, keep, visual & real, pruner.merge)
        ragged = min(lengths) < keep.shape[1]
        self._kept[layer] = KeptPositions(before.positions.gather(1, keep), real, ragged, counts)
        for read in [read for read in self._states if read not in self._reads_after(layer)]:
            del self._states[read]
        return torch.take_along_dim(hidden, keep.to(hidden.device)[..., None], 1)

    def _view(
        self,
        layer: int,
        pruner: InLLMPruner,
        attention: Attention,
        hidden: torch.Tensor,
        keep: torch.Tensor,
        alive: torch.Tensor,
        counts: tuple[int, ...],
    ) -> LayerView:
        """What a pruner sees; ``alive`` (B, K) are the visual tokens among those that ones before it here keep.

        ``counts`` (B,) are their numbers.
        """
        before = self.at(layer - 1)
        visual = torch.zeros_like(before.real).scatter(1, keep, alive)
        text = before.real & ~self._visual.gather(1, before.positions)
        return LayerView(
            layer,
            attention.query,
            attention.key[:, :, : attention.query.shape[2]],
            attention.value[:, :, : attention.query.shape[2]],
            attention.scale,
            attention.mask if isinstance(attention.mask, torch.Tensor) else None,
            hidden,
            visual.to(hidden.device),
            text.to(hidden.device),
            before.positions.to(hidden.device),
            counts,
            tuple(self._text),
            _budget(pruner, counts) if pruner.ratio or pruner.tokens else (),
            {read: partial(self._state, read, before, hidden.device) for read in pruner.reads},
            partial(self._images, before, visual),
            lambda: torch.take_along_dim(self._prompt.embeds, before.positions[..., None], 1),
        )

    def _reads_after(self, layer: int) -> set[int]:
        return {read for first in self._pruners if first > layer for p in self._pruners[first] for read in p.reads}

    def _state(self, layer: int, now: KeptPositions, device: torch.device) -> torch.Tensor:
        """The hidden states after an earlier layer, of the tokens that are there now, on the device of the cut."""
        hidden, then = self._states[layer].to(device), self.at(max(layer, 0))
        if then is now:
            return hidden
        index = torch.searchsorted(then.positions.contiguous(), now.positions.contiguous())
        index = index.clamp(max=then.positions.shape[1] - 1)  # fillers
        return torch.take_along_dim(hidden, index.to(hidden.device)[..., None], 1)

    def _images(self, now: KeptPositions, visual: torch.Tensor) -> torch.Tensor:
        """(B, M): see `LayerView.image`."""
        padding = self._prompt.embeds.shape[1] - torch.tensor(self._prompt.lengths)
        image = torch.full(self._visual.shape, -1)
        for sample, spans in enumerate(self._prompt.images):
            for number, span in enumerate(spans):
                image[sample, padding[sample] + span.start : padding[sample] + span.stop] = number
        placed = copy_to(image, visual.device).gather(1, now.positions)
        return placed.masked_fill(~visual, -1)

    def embedded(self, layer: int) -> torch.Tensor:
        """(B, M) or (P, B, M): the positions that the model embeds for what ``layer`` sees; see `Prompt`."""
        kept = self.at(layer)
        if kept not in self._embedded:
            self._embedded[kept] = self._numbers(kept)
        return self._embedded[kept]

    def _numbers(self, kept: KeptPositions) -> torch.Tensor:
        prompt = self._prompt
        axes = prompt.positions.shape[:-1]
        numbers = prompt.positions.gather(-1, kept.positions.expand(*axes, -1))
        if kept is self._kept[0] or prompt.cut_numbering == "original":
            return numbers
        for sample, (text, visual) in enumerate(zip(self._text, kept.visual, strict=True)):
            left, padding = text + visual, prompt.positions.shape[-1] - prompt.lengths[sample]
            before = prompt.positions[..., sample, padding:].reshape(-1, prompt.lengths[sample])
            sources = kept.positions[sample, -left:] - padding
            new = kept_positions(prompt.cut_numbering, before, sources, prompt.images[sample])
            numbers[..., sample, -left:] = new.view(*axes[:-1], left)
        return numbers

    @property
    def renumbers(self) -> bool:
        """Whether tokens have other positions behind a cut than before it."""
        return bool(self._pruners) and self._prompt.cut_numbering != "original"

    def visual_in_layer(self, layer: int) -> torch.Tensor:
        """(B, L) bool: the visual tokens of the prompt that ``layer`` sees."""
        kept = self.at(layer)
        alive = torch.zeros(self._visual.shape, dtype=torch.int8, device=self._visual.device)
        alive.scatter_reduce_(1, kept.positions, kept.real.to(torch.int8), "amax")
        return alive.bool() & self._visual


def _budget(pruner: InLLMPruner, counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(kept_count(count, pruner.ratio, pruner.tokens) for count in counts)


def _merged(
    view: LayerView,
    keep: torch.Tensor,
    visual: torch.Tensor,
    merge: Callable[[LayerView, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The hidden states (B, M, E) with those of kept visual tokens, ``visual`` (B, K), replaced by weighted sums."""
    keep, visual = keep.to(view.hidden.device), visual.to(view.hidden.device)
    sums = merge(view, keep).to(view.hidden.dtype) @ view.hidden
    change = (sums - torch.take_along_dim(view.hidden, keep[..., None], 1)).float()
    change = change.masked_fill(~visual[..., None], 0.0)  # fillers stand at another token's place
    return view.hidden.float().scatter_add(1, keep[..., None].expand_as(change), change).to(view.hidden.dtype)
