"""Pruning inside the language model: what a pruner sees, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fopru_graph.describing import Described

if TYPE_CHECKING:
    import torch


@dataclass(eq=False, repr=False)
class LayerView(Described):
    """What a pruner sees that cuts at layer K of the language model: B samples of M tokens, as layer K − 1 had them.

    A token is text, visual, or none of both: padding, fillers, and what another pruner at this layer has dropped.

    Attributes:
        layer: K.
        query: (B, H, M, d), after rotary embedding.
        key, value: (B, G, M, d) with G key-value heads, H a multiple of G.
        scale: factor on the logits, usually 1 / √d.
        mask: what the attention of layer K − 1 got: None (nothing hidden), bool (B or 1, 1, M, M) with True = visible,
            the same as additive floats, or (B, M) with non-zero = visible.
        hidden: (B, M, E), what layer K gets.
        visual, text: (B, M) bool.
        places: (B, M) int64, every token's index in the whole prompt.
        visual_counts, text_counts: (B,) how many of each there are, which the host knows without waiting.
        budget: (B,) how many visual tokens the pruner is to keep; empty if it chooses their number itself.
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    mask: torch.Tensor | None
    hidden: torch.Tensor
    visual: torch.Tensor
    text: torch.Tensor
    places: torch.Tensor
    visual_counts: tuple[int, ...] = ()
    text_counts: tuple[int, ...] = ()
    budget: tuple[int, ...] = ()
    _states: Mapping[int, Callable[[], torch.Tensor]] = field(default_factory=dict)
    _image: Callable[[], torch.Tensor] | None = None
    _embeds: Callable[[], torch.Tensor] | None = None

    def hidden_after(self, layer: int) -> torch.Tensor:
        """(B, M, E): the hidden states of the same tokens after an earlier layer, as `InLLMPruner.reads` names it."""
        number = self.layer + layer if layer < 0 else layer
        if number not in self._states:
            raise KeyError(f"the hidden states after layer {layer} were not kept: name it in reads=({layer},)")
        return self._states[number]()

    @cached_property
    def image(self) -> torch.Tensor:
        """(B, M) int64: which of its sample's images each visual token shows, from 0; −1 for all others."""
        assert self._image is not None
        return self._image()

    @cached_property
    def embeds(self) -> torch.Tensor:
        """(B, M, E): the prompt's embeddings of the same tokens, as they entered the language model."""
        assert self._embeds is not None
        return self._embeds()


@dataclass(frozen=True, repr=False)
class InLLMPruner(Described):
    """A description of pruning inside the language model: from layer ``layer`` on only the best visual tokens remain.

    ``layer`` is a number from 0, or a share of the model's depth in (0, 1), see `pruning.depth.layer_at`; the nearest
    layer that can be cut is taken for a share.

    ``score`` gets a `LayerView` of B samples of M tokens, e.g. `pruning.in_llm.last_token_attention`,
    and returns (B, M): numbers of which the largest are kept, or bools that say themselves which visual tokens are kept
    (the host then waits for their number). For numbers exactly one of ``ratio`` (share kept of the visual tokens that
    reach the layer, in (0, 1]) and ``tokens`` (number kept) is set; both count within each sample.

    ``merge`` gets the view and the (B, K) int64 indices of the tokens that stay, and returns (B, K, M) weights: what
    stays goes on as the weighted sum of the layer's hidden states. Text goes on as it is whatever the weights say.
    ``reads`` names earlier layers whose hidden states the view is to have, see `LayerView.hidden_after`. Negative ones
    count from the cut K: −1 is layer K − 1, whose states layer K gets; −K − 1 is what layer 0 gets.
    """

    score: Callable[[LayerView], torch.Tensor]
    layer: int | float
    ratio: float | None = None
    tokens: int | None = None
    merge: Callable[[LayerView, torch.Tensor], torch.Tensor] | None = None
    reads: tuple[int, ...] = ()
