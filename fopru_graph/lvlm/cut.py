"""Pruning inside the language model by hooks on its decoder layers: hidden states, positions and masks really shrink.

A cut at layer K ranks by layer K − 1's attention of the prompt and lets only the survivors through layers K and up.
Every layer's cache then has its own, shorter length; kept tokens keep their original positions, and generated ones go
on from the full length. This works under the stock ``generate`` as well as under `decode.generate`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.family import Family
from fopru_graph.lvlm.tap import tap_attention
from fopru_graph.pruning.in_llm import surviving_positions
from fopru_graph.values import InLLMPruner


def check_pruners(pruners: Sequence[InLLMPruner], depth: int) -> None:
    """Refuse cuts that the model has no layer for.

    Raises:
        UserError: a pruner's layer is below 1 (nothing to rank by) or not below ``depth``.
    """
    for pruner in pruners:
        if not 1 <= pruner.layer < depth:
            raise UserError(
                f"cannot prune at layer {pruner.layer}: the language model has layers 0 … {depth - 1}",
                f"choose layer 1 … {depth - 1}; scores come from the attention of the layer below",
            )


class Cuts:
    """The cuts of one run and what became of its prompt, which can still be asked for when `pruned` has ended."""

    def __init__(
        self, family: Family, pruners: Sequence[InLLMPruner], visual: torch.Tensor, valid: torch.Tensor
    ) -> None:
        self._layers = family.layers
        self._flash = "flash" in str(family.language_model.config._attn_implementation)
        self._visual, self._valid = visual, valid.bool()
        self._stages: dict[int, list[InLLMPruner]] = {}
        for pruner in sorted(pruners, key=lambda p: p.layer):
            self._stages.setdefault(pruner.layer, []).append(pruner)
        self._firsts = sorted(self._stages)
        self._noted: dict[int, tuple[torch.Tensor, torch.Tensor, float, Any]] = {}
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # first layer -> positions (B, M), real (B, M)
        self._masks: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._prefilled = False
        self._length = visual.shape[1]

    def surviving(self, layer: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Positions (B, M) and realness (B, M) of the prompt in ``layer``, or None where nothing is cut yet."""
        first = max((k for k in self._firsts if k <= layer), default=None)
        return None if first is None else self._kept[first]

    def visual_in_layer(self, layer: int) -> torch.Tensor:
        """(B, L) bool: the visual positions of the prompt that ``layer`` sees."""
        kept = self.surviving(layer)
        if kept is None:
            return self._visual
        positions, real = kept
        seen = torch.zeros_like(self._visual)
        rows = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)
        seen[rows[real], positions[real]] = True
        return seen & self._visual

    @contextlib.contextmanager
    def applied(self) -> Iterator[Cuts]:
        """Hook the layers for the time of a ``with`` block; the model is as before afterwards, whatever happens."""
        with contextlib.ExitStack() as stack:
            for first in self._firsts:
                stack.enter_context(tap_attention(self._layers[first - 1].self_attn, self._note(first)))
            for index, layer in enumerate(self._layers):
                if self._firsts and index >= self._firsts[0]:
                    hook = layer.register_forward_pre_hook(self._before(index), with_kwargs=True)
                    stack.callback(hook.remove)
            yield self

    def _note(self, first: int) -> Callable[..., None]:
        def note(query: torch.Tensor, key: torch.Tensor, scale: float, mask: Any) -> None:
            if not self._prefilled:
                self._noted[first] = (query, key, scale, mask)

        return note

    def _before(self, index: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        """The pre-hook of layer ``index``: shorten what the stock forward passes to it."""
        last = index == len(self._layers) - 1

        def shorten(
            _layer: Any, args: tuple[Any, ...], given: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = args[0] if args else given["hidden_states"]
            if index == self._firsts[0]:
                self._begin_step(hidden)
            if not self._prefilled and index in self._stages:
                hidden = self._cut(index, hidden)
            given = self._shortened(index, given)
            if last:
                self._prefilled = True
            return ((hidden, *args[1:]), given) if args else ((), given | {"hidden_states": hidden})

        return shorten

    def _begin_step(self, hidden: torch.Tensor) -> None:
        self._masks.clear()
        if self._prefilled and hidden.shape[1] > 1:
            raise UserError(
                "in-LLM pruning ranks by one whole prompt; a second prompt or chunk came in",
                "switch off chunked prefill, assisted decoding and prefix continuation",
            )
        if not self._prefilled and hidden.shape[1] != self._length:
            raise UserError(
                f"the model was given {hidden.shape[1]} tokens, the pruner was made for {self._length}",
                "switch off chunked prefill",
            )

    def _cut(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Rank by the layer below, note the survivors, and return their hidden states (B, M, E)."""
        before = self.surviving(index - 1)
        visual, real = self._visual, self._valid
        if before is not None:
            visual, real = visual.gather(1, before[0]), before[1]
        query, key, scale, mask = self._noted.pop(index)
        mask = mask if isinstance(mask, torch.Tensor) else None
        home = visual.device  # all bookkeeping stays with the prompt, whatever device a layer is on
        places, alive = None, real
        for pruner in self._stages[index]:
            scores = pruner.score(query, key[:, :, : query.shape[2]], scale, mask).to(home)
            if places is not None:
                scores, visual = scores.gather(1, places), visual.gather(1, places)
            chosen, alive = surviving_positions(scores, visual, alive, pruner.ratio, pruner.tokens)
            places = chosen if places is None else places.gather(1, chosen)
        assert places is not None
        self._kept[index] = (places if before is None else before[0].gather(1, places), alive)
        return torch.take_along_dim(hidden, places[..., None].to(hidden.device), 1)

    def _shortened(self, index: int, given: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer, which stock builds for the full sequence, for the survivors."""
        kept = self.surviving(index)
        assert kept is not None
        given = dict(given)
        given["attention_mask"] = self._shortened_mask(index, given.get("attention_mask"), given.get("past_key_values"))
        if not self._prefilled:
            if given.get("position_embeddings") is not None:
                given["position_embeddings"] = tuple(_gather(t, kept[0]) for t in given["position_embeddings"])
            if given.get("position_ids") is not None:
                given["position_ids"] = _gather(given["position_ids"], kept[0])
        return given

    def _shortened_mask(self, index: int, mask: Any, cache: Any) -> Any:
        first = max(k for k in self._firsts if k <= index)
        key = (first, id(mask))
        if key not in self._masks:
            total = self._length if not self._prefilled else cache.get_seq_length(0)
            # The mask itself is kept in the entry so that its id cannot be reused within the step.
            self._masks[key] = (mask, self._reduce_mask(mask, *self._kept[first], total))
        return self._masks[key][1]

    def _reduce_mask(self, mask: Any, positions: torch.Tensor, real: torch.Tensor, total: int) -> Any:
        """Rows and columns of a mask for the survivors and the tokens generated since; ``total`` counts them all."""
        if mask is not None and not isinstance(mask, torch.Tensor):
            raise UserError(
                f"in-LLM pruning cannot cut a {type(mask).__name__}", "load the model with attention: sdpa or eager"
            )
        if mask is None and bool(real.all()):
            return None
        batch, kept = positions.shape
        new = torch.arange(self._length, total, device=positions.device).expand(batch, -1)
        columns = torch.cat([positions, new], 1)  # (B, M + new)
        visible = torch.cat([real, real.new_ones(batch, new.shape[1])], 1)
        if mask is not None and mask.dim() == 2:
            return mask.to(positions.device).gather(1, columns) * visible.to(mask.dtype)
        if mask is None:  # no padding, but samples kept different numbers: fillers must be hidden
            if self._flash:
                return visible.long()  # its kernels take (B, L) masks only and are causal by themselves
            row = visible[:, None, None, :]
            if self._prefilled:
                return row
            causal = torch.ones(kept, kept, dtype=torch.bool, device=positions.device)
            return row & causal.tril() | torch.eye(kept, dtype=torch.bool, device=positions.device)
        mask = mask.to(positions.device).expand(batch, -1, -1, -1)
        if not self._prefilled:
            mask = torch.take_along_dim(mask, positions[:, None, :, None], 2)
        mask = torch.take_along_dim(mask, columns[:, None, None, :], 3)
        hidden = ~visible[:, None, None, :]
        return mask & ~hidden if mask.dtype == torch.bool else mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def _gather(tensor: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows ``positions`` (B, M) of a tensor (B or 1, L, …) along its second dimension."""
    positions = positions.to(tensor.device)
    tensor = tensor.expand(positions.shape[0], *tensor.shape[1:])
    return torch.take_along_dim(tensor, positions.view(*positions.shape, *[1] * (tensor.dim() - 2)), 1)


@contextlib.contextmanager
def pruned(
    family: Family, pruners: Sequence[InLLMPruner], visual: torch.Tensor, attention_mask: torch.Tensor
) -> Iterator[Cuts]:
    """Apply ``pruners`` to every forward of the model inside the ``with`` block, for one prompt and its answer.

    Args:
        family: the model.
        pruners: any number, at any layers; several at one layer are applied one after the other.
        visual: (B, L) bool, the visual tokens of the prompt.
        attention_mask: (B, L), 0 on padding.

    Raises:
        UserError: a layer does not exist, the budget is wrong, or the model is driven in a way that cannot be pruned.
    """
    check_pruners(pruners, len(family.layers))
    with Cuts(family, pruners, visual, attention_mask).applied() as cuts:
        yield cuts
