"""Pruning inside the language model by hooks on its decoder layers: hidden states, positions and masks really shrink.

A cut at layer K ranks by layer K − 1's attention of the prompt and lets only the survivors through layers K and up.
Every layer's cache then has its own, shorter length; kept tokens keep their original positions, and generated ones go
on from the full length. This works under the stock ``generate`` and under any loop over the stock forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.kept import Stage, Survivors, check_pruners
from fopru_graph.lvlm.families.capture_qk import capture_qk
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.values import InLLMPruner


class _Hooks:
    """The state of the hooks during one prompt and its answer."""

    def __init__(self, family: Family, survivors: Survivors) -> None:
        self._layers = family.layers
        self._flash = "flash" in str(family.language_model.config._attn_implementation)
        self._survivors, self._cuts = survivors, survivors.cuts
        self._length = survivors.at(0).positions.shape[1]
        self._noted: dict[int, tuple[torch.Tensor, torch.Tensor, float, Any]] = {}
        self._masks: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._prefilled = False

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Hook the layers for the time of a ``with`` block; the model is as before afterwards, whatever happens."""
        with contextlib.ExitStack() as stack:
            for first in self._cuts:
                stack.enter_context(capture_qk(self._layers[first - 1].self_attn, self._note(first)))
            for index, layer in enumerate(self._layers):
                if self._cuts and index >= self._cuts[0]:
                    hook = layer.register_forward_pre_hook(self._before(index), with_kwargs=True)
                    stack.callback(hook.remove)
            yield

    def _note(self, first: int) -> Callable[..., None]:
        def note(query: torch.Tensor, key: torch.Tensor, scale: float, mask: Any) -> None:
            if not self._prefilled:
                self._noted[first] = (query, key[:, :, : query.shape[2]], scale, mask)

        return note

    def _before(self, index: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        """The pre-hook of layer ``index``: shorten what the stock forward passes to it."""
        last = index == len(self._layers) - 1

        def shorten(
            _layer: Any, args: tuple[Any, ...], given: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = args[0] if args else given["hidden_states"]
            if index == self._cuts[0]:
                self._begin_step(hidden)
            if not self._prefilled and index in self._cuts:
                places = self._survivors.cut(index, *self._noted.pop(index))
                hidden = torch.take_along_dim(hidden, places[..., None].to(hidden.device), 1)
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

    def _shortened(self, index: int, given: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer, which stock builds for the full sequence, for the survivors."""
        stage = self._survivors.at(index)
        given = dict(given)
        given["attention_mask"] = self._shortened_mask(index, given.get("attention_mask"), given.get(cache_argument()))
        if not self._prefilled:
            if given.get("position_embeddings") is not None:
                given["position_embeddings"] = tuple(_gather(t, stage.positions) for t in given["position_embeddings"])
            if given.get("position_ids") is not None:
                given["position_ids"] = _gather(given["position_ids"], stage.positions)
        return given

    def _shortened_mask(self, index: int, mask: Any, cache: Any) -> Any:
        key = (max(first for first in self._cuts if first <= index), id(mask))
        if key not in self._masks:
            total = self._length if not self._prefilled else cache.get_seq_length(0)
            # The mask itself is kept in the entry so that its id cannot be reused within the step.
            self._masks[key] = (mask, self._reduce_mask(mask, self._survivors.at(index), total))
        return self._masks[key][1]

    def _reduce_mask(self, mask: Any, stage: Stage, total: int) -> Any:
        """Rows and columns of a mask for the survivors and the tokens generated since; ``total`` counts them all."""
        if mask is not None and not isinstance(mask, torch.Tensor):
            raise UserError(
                f"in-LLM pruning cannot cut a {type(mask).__name__}", "load the model with attention: sdpa or eager"
            )
        if mask is None and not stage.ragged:
            return None
        positions, real = stage.positions, stage.real
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


def hooked(family: Family, survivors: Survivors) -> contextlib.AbstractContextManager[None]:
    """Apply the cuts of ``survivors`` to every forward of the model inside the ``with`` block."""
    return _Hooks(family, survivors).applied()


@contextlib.contextmanager
def pruned(
    family: Family, pruners: Sequence[InLLMPruner], visual: torch.Tensor, attention_mask: torch.Tensor
) -> Iterator[Survivors]:
    """Apply ``pruners`` to every forward of the model inside the ``with`` block, for one prompt and its answer.

    Args:
        family: the model.
        pruners: any number, at any layers; several at one layer are applied one after the other.
        visual: (B, L) bool, the visual tokens of the prompt.
        attention_mask: (B, L), 0 on padding.

    Raises:
        UserError: a layer does not exist, the budget is wrong, or the model is driven in a way that cannot be pruned.
    """
    check_pruners(pruners, len(family.layers), family.first_cut)
    valid = attention_mask.bool()
    text, seen = (valid & ~visual).sum(1).tolist(), (valid & visual).sum(1).tolist()
    survivors = Survivors(pruners, visual, valid, text, seen)
    with hooked(family, survivors):
        yield survivors
