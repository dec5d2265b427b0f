"""The bookkeeping of cuts inside the language model: which positions of the prompt live on in which layer.

Where positions go is decided on the device, how many there are is known on the host all along, so nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning.in_llm import surviving_positions
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import InLLMPruner


def check_pruners(pruners: Sequence[InLLMPruner], depth: int, first: int = 1) -> None:
    """Refuse cuts that the model has no layer for.

    Raises:
        UserError: a pruner's layer is below ``first`` (at 0 there is nothing to rank by; models that add visual
            features to their first layers need all tokens there) or not below ``depth``.
    """
    for pruner in pruners:
        if not first <= pruner.layer < depth:
            raise UserError(
                f"cannot prune at layer {pruner.layer}: the language model has layers 0 … {depth - 1}"
                + (f" and adds visual features up to layer {first - 1}" if first > 1 else ""),
                f"choose layer {first} … {depth - 1}; scores come from the attention of the layer below",
            )


@dataclass(frozen=True, eq=False)
class Stage:
    """The prompt from one layer on: ``positions`` (B, M) in the whole prompt, ``real`` (B, M), False for fillers.

    ``text`` and ``seen`` count each sample's text and visual tokens.
    """

    positions: torch.Tensor
    real: torch.Tensor
    text: tuple[int, ...]
    seen: tuple[int, ...]

    @property
    def ragged(self) -> bool:
        """Whether there are fillers: some sample is shorter than the longest."""
        return any(t + v != self.positions.shape[1] for t, v in zip(self.text, self.seen, strict=True))


class Survivors:
    """What becomes of one batch of prompts, cut by cut.

    Args:
        pruners: any number at any layers; several at one layer are applied one after the other.
        visual: (B, L) bool, the visual tokens.
        valid: (B, L) bool, False for padding.
        text: valid text tokens of every sample.
        seen: visual tokens of every sample.
    """

    def __init__(
        self,
        pruners: Sequence[InLLMPruner],
        visual: torch.Tensor,
        valid: torch.Tensor,
        text: Sequence[int],
        seen: Sequence[int],
    ) -> None:
        self._visual = visual
        self._pruners: dict[int, list[InLLMPruner]] = {}
        for pruner in sorted(pruners, key=lambda p: p.layer):
            self._pruners.setdefault(pruner.layer, []).append(pruner)
        batch, length = visual.shape
        everything = torch.arange(length, device=visual.device).expand(batch, -1)
        self._stages = {0: Stage(everything, valid, tuple(text), tuple(seen))}

    @property
    def cuts(self) -> list[int]:
        """The layers from which on the prompt is shorter, ascending."""
        return list(self._pruners)

    def at(self, layer: int) -> Stage:
        """The prompt as ``layer`` sees it, once all cuts up to it were made."""
        return self._stages[max(first for first in self._stages if first <= layer)]

    def cut(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float, mask: object) -> torch.Tensor:
        """Rank by the attention of the layer below and note who lives on.

        Args:
            layer: first layer that sees fewer tokens, one of `cuts`.
            query: (B, H, L, d) and ``key`` (B, G, L, d) of layer − 1, with its scale and the mask that it got.
            key: see ``query``.
            scale: factor on the logits.
            mask: a tensor, or anything else for none.

        Returns:
            (B, M) int64: the survivors' places in the sequence that layer − 1 saw, ascending.
        """
        before = self.at(layer - 1)
        home = self._visual.device  # bookkeeping stays with the prompt, whatever device a layer is on
        visual, alive, seen = self._visual.gather(1, before.positions), before.real, before.seen
        places = torch.arange(visual.shape[1], device=home).expand_as(visual)
        for pruner in self._pruners[layer]:
            scores = pruner.score(query, key, scale, mask if isinstance(mask, torch.Tensor) else None).to(home)
            seen = tuple(kept_count(count, pruner.ratio, pruner.tokens) for count in seen)
            kept = [t + v for t, v in zip(before.text, seen, strict=True)]
            chosen, alive = surviving_positions(scores.gather(1, places), visual, alive, kept)
            places, visual = places.gather(1, chosen), visual.gather(1, chosen)
        self._stages[layer] = Stage(before.positions.gather(1, places), alive, before.text, seen)
        return places

    def visual_in_layer(self, layer: int) -> torch.Tensor:
        """(B, L) bool: the visual positions of the prompt that ``layer`` sees."""
        stage = self.at(layer)
        found = torch.zeros(self._visual.shape, dtype=torch.int8, device=self._visual.device)
        found.scatter_reduce_(1, stage.positions, stage.real.to(torch.int8), "amax")
        return found.bool() & self._visual
