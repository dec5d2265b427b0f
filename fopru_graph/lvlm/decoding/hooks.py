"""Pruning inside the language model by hooks on its decoder layers: hidden states, positions and masks really shrink.

A cut at layer K ranks the visual tokens by the prompt's attention in layer K − 1; only the kept ones pass through the
layers from K on. Each layer's KV cache then has its own, shorter length. Kept tokens keep their original positions, and
generated ones go on from the full length. This works under the stock ``generate`` as under `StockRunner`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils.generic import is_flash_attention_requested

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.finite import NotFinite
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.masks import check_flash_windows, shortened_mask, sliding_windows
from fopru_graph.lvlm.families.capture_qk import Attention, capture_qk
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.compat import cache_argument


@contextlib.contextmanager
def pruned(family: Family, cuts: Cuts) -> Iterator[None]:
    """Make ``cuts`` in every forward inside the ``with`` block, which is for one prompt and its answer.

    The model is as before afterwards, whatever happens. Works under the stock ``generate`` too:
    ``with pruned(family, Cuts(family, pruners, prompt)): family.model.generate(inputs_embeds=prompt.embeds, …)``
    Sliding windows count positions of the whole prompt, as in the stock model, so every layer of its cache keeps all
    tokens it gets.

    Raises:
        UserError: the model is driven in a way that cannot be pruned, or its kernel has no such windows.
        NotFinite: at the end of the block, the scores of a cut hold NaN or infinity.
    """
    hooks = _Hooks(family, cuts)
    with contextlib.ExitStack() as stack:
        if cuts.layers:
            hook = family.decoder.register_forward_pre_hook(hooks.begin, with_kwargs=True)
            stack.callback(hook.remove)
        for first in cuts.layers:
            stack.enter_context(capture_qk(family.layers[first - 1].self_attn, partial(hooks.keep_attention, first)))
        for index, layer in enumerate(family.layers):
            if index - 1 in cuts.reads:
                stack.callback(layer.register_forward_pre_hook(partial(hooks.read, index), with_kwargs=True).remove)
            if cuts.layers and index >= cuts.layers[0]:
                hook = layer.register_forward_pre_hook(partial(hooks.shorten, index), with_kwargs=True)
                stack.callback(hook.remove)
        yield
    if not all(cuts.scores_finite):
        raise NotFinite("the scores that visual tokens were to be chosen by")


class _Hooks:
    """The hooks of one prompt and its answer, and the state that they share."""

    def __init__(self, family: Family, cuts: Cuts) -> None:
        config = family.language_model.config
        self._family, self._cuts, (self._batch, self._length) = family, cuts, cuts.at(0).positions.shape
        self._last = len(family.layers) - 1
        self._flash = is_flash_attention_requested(config)
        self._windows = sliding_windows(config)
        self._attention: dict[int, Attention] = {}  # by the cut that reads it
        self._masks: dict[tuple[int, int, int | None], tuple[Any, torch.Tensor | None]] = {}  # of this step
        self._prefilled = False
        if self._flash:
            check_flash_windows(self._windows, cuts.layers, self._length)

    def begin(
        self, _decoder: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The pre-hook of the decoder, before it makes masks: check the step, and give it a cache that can be cut."""
        self._masks.clear()
        embeds = options.get("inputs_embeds")
        given = embeds if embeds is not None else args[0] if args else options["input_ids"]
        samples, tokens = given.shape[:2]
        if self._prefilled:
            if tokens > 1:
                raise UserError(
                    "in-LLM pruning ranks by one whole prompt; a second prompt or chunk came in",
                    "switch off chunked prefill, assisted decoding and prefix continuation, and leave the cache on",
                )
            return args, options
        if (samples, tokens) != (self._batch, self._length):
            raise UserError(
                f"the model was given {samples} × {tokens} tokens, the pruner was made for "
                f"{self._batch} × {self._length}",
                "switch off chunked prefill, beams and num_return_sequences",
            )
        return args, options | {cache_argument(): full_cache(options.get(cache_argument()))}

    def keep_attention(self, first: int, attention: Attention) -> None:
        """The tap of layer ``first − 1``: keep what the cut at ``first`` reads."""
        if not self._prefilled:
            self._attention[first] = attention

    def read(self, index: int, _layer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """The pre-hook of the layer after one whose hidden states a pruner reads, DeepStack's features included."""
        if not self._prefilled:
            self._cuts.read(index - 1, args[0] if args else options["hidden_states"])

    def shorten(
        self, index: int, layer: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The pre-hook of layer ``index``: shorten what the stock forward passes to it."""
        hidden = args[0] if args else options["hidden_states"]
        if not self._prefilled and index in self._cuts.layers:
            hidden = self._cuts.cut(index, self._attention.pop(index), hidden)
        options = self._shortened(index, layer, options)
        if self._cuts.renumbers:
            options["position_embeddings"] = self._rotary(index, hidden, options)
        self._prefilled |= index == self._last
        return ((hidden, *args[1:]), options) if args else ((), options | {"hidden_states": hidden})

    def _shortened(self, index: int, layer: Any, options: dict[str, Any]) -> dict[str, Any]:
        """A layer's keyword arguments, which the stock model builds for the whole sequence, for the kept positions."""
        positions = self._cuts.at(index).positions
        shorter = options | {"attention_mask": self._mask(index, options)}
        if not self._prefilled:
            if options.get("position_embeddings") is not None:
                shorter["position_embeddings"] = tuple(_gather(t, positions) for t in options["position_embeddings"])
            if options.get("position_ids") is not None:
                gaps = self._flash and not _reads_positions(layer)
                shorter["position_ids"] = None if gaps else _gather(options["position_ids"], positions)
        return shorter

    def _rotary(self, index: int, hidden: torch.Tensor, options: dict[str, Any]) -> Any:
        """What a layer behind a cut rotates by, where positions are not those before it."""
        positions = self._cuts.embedded(index)
        if self._prefilled:
            positions = positions[..., -1:] + options[cache_argument()].get_seq_length(0) - self._length
        return self._family.rotary(hidden, positions.to(hidden.device))[self._family.layer_kinds[index]]

    def _mask(self, index: int, options: dict[str, Any]) -> torch.Tensor | None:
        """The shortened mask of a layer, made once a step for all layers that get the same one."""
        mask = options.get("attention_mask")
        window = self._windows[index] if self._flash else None
        entry = max(first for first in self._cuts.layers if first <= index), id(mask), window
        if entry not in self._masks:
            generated = options[cache_argument()].get_seq_length(0) - self._length if self._prefilled else 0
            shorter = shortened_mask(mask, self._cuts.at(index), self._length, generated, self._flash, window)
            self._masks[entry] = mask, shorter  # the stock mask stays alive, so that no other gets its id in this step
        return self._masks[entry][1]


def full_cache(cache: Any) -> Any:
    """``cache`` with layers that keep every token; a new one for None.

    A layer for a sliding window would forget by the tokens it gets, and the stock model would size its masks for that.

    Raises:
        UserError: the cache is not empty, or its layers have one fixed length.
    """
    if cache is None:
        return DynamicCache()
    if known := cache.get_seq_length():
        raise UserError(
            f"in-LLM pruning ranks by one whole prompt; {known} tokens are in the cache already",
            "begin with an empty cache",
        )
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = DynamicLayer()
        elif not isinstance(layer, DynamicLayer):
            raise UserError(
                f"in-LLM pruning cannot shorten a {type(cache).__name__} of {type(layer).__name__}s",
                "leave cache_implementation out, or pass a DynamicCache",
            )
    return cache


def _reads_positions(layer: Any) -> bool:
    """Whether a layer's attention computes with ``position_ids`` (Ministral 3 scales queries by them).

    Others hand them on to flash kernels only, where gaps mean packed sequences: those are looked for in every layer,
    which waits for the device, and run by the slower kernel for sequences of different length.
    """
    return "position_ids" in inspect.signature(type(layer.self_attn).forward).parameters


def _gather(tensor: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Entries ``positions`` (B, M) of a tensor (B or 1, L, …) along its second dimension."""
    positions = positions.to(tensor.device)
    tensor = tensor.expand(positions.shape[0], *tensor.shape[1:])
    return torch.take_along_dim(tensor, positions.view(*positions.shape, *[1] * (tensor.dim() - 2)), 1)
