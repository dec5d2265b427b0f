"""The decoder layers in segments, one up to each cut, each with preallocated KV caches.

For decoders that are embeddings, layers and a norm, and of which `families.layerwise` knows the rest. Hidden states,
positions and masks are cut between the segments, without hooks; decoding appends to the caches in place, where a stock
cache copies itself at every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from transformers.utils.generic import is_flash_attention_requested

from fopru_graph.lvlm.decoding.last_layer import last_position
from fopru_graph.lvlm.decoding.masks import (
    check_flash_windows,
    kernel_mask,
    key_positions,
    query_positions,
    sliding_windows,
    visible_keys,
)
from fopru_graph.lvlm.decoding.runner import DecoderRunner, KeyValues
from fopru_graph.lvlm.decoding.wide_keys import keys_type, wide_keys
from fopru_graph.lvlm.families.capture_qk import Attention, capture_qk
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.layerwise import Layerwise
from fopru_graph.lvlm.loading.compat import cache_argument

Mask = Callable[[int | None], torch.Tensor | None]  # from a sliding window to the attention mask
BLOCK = 512  # tokens of an answer that buffers have room for at first; longer ones double them


def fits_segments(family: Family) -> bool:
    """Whether the language model can be run layer by layer: its type, attention kernel and devices allow it."""
    config = family.language_model.config
    one_device = len({weight.device for weight in family.language_model.parameters()}) == 1
    known = config.model_type in family.layerwise_texts
    # Flash kernels take no masks, so none that let tokens look ahead.
    causal = type(family).sees_until is Layerwise.sees_until
    flash = is_flash_attention_requested(config) and causal
    return known and (config._attn_implementation in ("sdpa", "eager") or flash) and one_device


@dataclass(frozen=True)
class Segment:
    """Decoder layers that see the same tokens: ``layers`` from ``first`` on, each with its kind and sliding window."""

    index: int
    first: int
    layers: Sequence[Any]
    kinds: Sequence[str]
    windows: Sequence[int | None]

    def run(
        self,
        hidden: torch.Tensor,
        rotary: Mapping[str, Any],
        cache: Any,
        mask: Mask,
        after: Callable[[int, torch.Tensor], torch.Tensor] = lambda _layer, hidden: hidden,
    ) -> torch.Tensor:
        """Hidden states (B, Q, E), whose positions layers of each kind embed by ``rotary``, after the layers.

        The layers call ``cache.update(keys, values, layer)``; ``mask(window)`` makes the mask for a sliding window, and
        ``after(layer, hidden)`` is what follows a layer.
        They get no positions: flash kernels would look for packed sequences in them, and wait for the device.
        """
        masks = {window: mask(window) for window in set(self.windows)}
        for index, layer in enumerate(self.layers):
            hidden = layer(
                hidden,
                attention_mask=masks[self.windows[index]],
                position_embeddings=rotary[self.kinds[index]],
                use_cache=True,
                **{cache_argument(): cache},
            )
            hidden = after(self.first + index, hidden)
        return hidden

    def split_last(self) -> tuple[Segment, Segment]:
        """All layers but the last one, and that one."""
        first = self.first + len(self.layers) - 1
        parts = self.layers, self.kinds, self.windows
        below = Segment(self.index, self.first, *(part[:-1] for part in parts))
        return below, Segment(self.index, first, *(part[-1:] for part in parts))


def split_layers(family: Family, cuts: Sequence[int]) -> list[Segment]:
    """The segments of a decoder that is cut at the layers ``cuts``."""
    layers = list(family.layers), family.layer_kinds, sliding_windows(family.language_model.config)
    bounds = pairwise([0, *cuts, len(family.layers)])
    return [Segment(i, first, *(part[first:end] for part in layers)) for i, (first, end) in enumerate(bounds)]


class SegmentRunner(DecoderRunner):
    """Runs segment after segment; in float32 on the CPU bit for bit what the stock forward gives."""

    loop = "segments"

    def hooks(self) -> contextlib.AbstractContextManager[None]:
        """See `DecoderRunner.hooks`."""
        if self._keys_type == self.family.dtype:
            return contextlib.nullcontext()
        return wide_keys([layer.self_attn for layer in self.family.layers])

    def prefill(self) -> torch.Tensor:
        """See `DecoderRunner.prefill`."""
        prompt, known = self.prompt, self.reused
        config = self.family.language_model.config
        if is_flash_attention_requested(config):
            check_flash_windows(sliding_windows(config), self.cuts.layers, prompt.embeds.shape[1])
        self.segments = split_layers(self.family, self.cuts.layers)
        self.key_positions: list[torch.Tensor] = []  # (B, M) of each segment
        self.lengths: list[int] = []  # tokens in each layer's cache
        self._caches: list[KeyValues] = []  # each layer's buffers, with room for the answer
        # What windows count: places in the whole prompt, which on one axis are its positions, gaps and all.
        index = torch.arange(prompt.embeds.shape[1], device=prompt.positions.device).expand(len(prompt.embeds), -1)
        places = prompt.positions if prompt.positions.dim() == 2 else index
        self._position = last = places[:, -1:]  # (B, 1), of the token before the next one
        self._offsets: list[torch.Tensor] = []  # (B, 1) or (P, B, 1): from there to what each segment embeds
        until = self.family.sees_until(prompt)
        after = partial(self._after, reads=self.cuts.reads)
        hidden = prompt.embeds[:, known:]
        if -1 in self.cuts.reads:
            self.cuts.read(-1, hidden)
        attention: list[Attention] = []  # of the layer below the next cut
        for segment in self.segments:
            if segment.first:
                hidden = self.cuts.cut(segment.first, attention.pop(), hidden)
            kept, real = self.cuts.at(segment.first).positions, self.cuts.at(segment.first).real
            positions, embedded = places.gather(1, kept), self.cuts.embedded(segment.first)
            self._offsets.append(embedded[..., -1:] - last)
            self.key_positions.append(key_positions(positions, real))
            for layer, pair in enumerate(self.take_prefix()):
                self.update(*pair, layer)
            rotary = self.family.rotary(hidden, embedded[..., known:])
            queries = query_positions(positions, real, last)[:, known:]
            sees = None if until is None else places.gather(1, until).gather(1, kept)
            ends = None if sees is None else query_positions(sees, real, last)[:, known:]
            mask = partial(self._mask, segment, queries, hidden.dtype, until=ends)
            tap = capture_qk(segment.layers[-1].self_attn, attention.append)
            with contextlib.nullcontext() if segment is self.segments[-1] else tap:
                if segment is self.segments[-1] and self._only_last_position(hidden):
                    below, top = segment.split_last()
                    hidden = below.run(hidden, rotary, self, mask, after)
                    ends = None if ends is None else ends[:, -1:]
                    mask = partial(self._mask, top, queries[:, -1:], hidden.dtype, until=ends)
                    hidden = last_position(top.run, hidden, rotary, self, mask)
                else:
                    hidden = segment.run(hidden, rotary, self, mask, after)
        return self._logits(hidden)

    def _after(self, layer: int, hidden: torch.Tensor, reads: frozenset[int]) -> torch.Tensor:
        hidden = self.family.after_layer(layer, hidden, self.prompt)
        if layer in reads:
            self.cuts.read(layer, hidden)
        return hidden

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`."""
        self._position = position = self._position + 1
        hidden = self.family.embed(ids[:, None])
        for segment in self.segments:
            if segment.index == 0 or self.cuts.renumbers:
                rotary = self.family.rotary(hidden, position + self._offsets[segment.index])
            self.key_positions[segment.index] = torch.cat([self.key_positions[segment.index], position], 1)
            mask = partial(self._mask, segment, position, hidden.dtype)
            hidden = segment.run(hidden, rotary, self, mask)
        return self._logits(hidden)

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return filled_parts(self._caches, self.lengths)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_options: Any) -> KeyValues:
        """What the layers call on their cache: append (B, G, Q, d) and return all that is filled."""
        if layer == len(self._caches):  # its first tokens; the rest of the prompt and the answer will follow
            self._caches.append(self._buffers(layer, keys, values))
            self.lengths.append(0)
        begin, end = self.lengths[layer], self.lengths[layer] + keys.shape[2]
        self.lengths[layer] = end
        if end > self._caches[layer][0].shape[2]:
            old_keys, old_values = self._caches[layer]
            length = min(2 * begin, begin + self.room)
            self._caches[layer] = _longer(old_keys, length), _longer(old_values, length)
        for buffer, new in zip(self._caches[layer], (keys, values), strict=True):
            buffer[:, :, begin:end] = new
        return filled_parts([self._caches[layer]], [end])[0] if begin else (keys, values)

    def _buffers(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> KeyValues:
        """Buffers with room for a layer's prompt and answer, for keys and values such as these."""
        length = self.key_positions[-1].shape[1] + min(self.room, BLOCK)
        dtype = self._keys_type
        return _longer(keys[:, :, :0].to(dtype), length), _longer(values[:, :, :0].to(dtype), length)

    @cached_property
    def _keys_type(self) -> torch.dtype:
        """The type of the caches; the prefill itself has no use for another than the model's."""
        return keys_type(self.family) if self.room else self.family.dtype

    def _mask(
        self,
        segment: Segment,
        queries: torch.Tensor,
        dtype: torch.dtype,
        window: int | None,
        until: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """The mask of a segment's layers; None where the kernel's own causality hides all that must be hidden."""
        config, keys = self.family.language_model.config, self.key_positions[segment.index]
        if is_flash_attention_requested(config):
            return self._flash_mask(segment, queries, window)
        if until is not None:
            window = window if self.family.windows_in_prompt else None
            return kernel_mask(queries, keys, config, dtype, window, until)
        whole = queries.shape[1] == keys.shape[1] and config._attn_implementation != "eager"
        taken = self.key_positions[0].shape[1] - len(self.prompt.embeds[0]) + max(self.prompt.spans)
        inside = window is None or taken < window
        if inside and (whole or queries.shape[1] == 1) and not self.cuts.at(segment.first).ragged:
            return None
        return kernel_mask(queries, keys, config, dtype, window)

    def _flash_mask(self, segment: Segment, queries: torch.Tensor, window: int | None) -> torch.Tensor | None:
        """(B, T): the keys that the last query sees, for kernels that are causal and count windows by themselves.

        They count the keys they get, so a segment behind a cut has the window in its mask.
        """
        left = window is not None and segment.first > 0 and self.key_positions[0].shape[1] > window
        if not left and not self.cuts.at(segment.first).ragged:
            return None
        keys = self.key_positions[segment.index]
        return visible_keys(queries[:, -1:], keys, window if left else None)[:, 0, 0].long()

    def _only_last_position(self, hidden: torch.Tensor) -> bool:
        """Whether the last layer runs for the last position only: not in float32, which is stock's bit for bit."""
        follows = len(self.prompt.deepstack) < len(self.family.layers)  # then nothing comes after the last layer
        return follows and hidden.device.type == "cpu" and hidden.dtype != torch.float32 and hidden.shape[1] > 1

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.family.logits(self.family.language_model.norm(hidden)[:, -1])


def _longer(part: torch.Tensor, length: int) -> torch.Tensor:
    """A buffer (B, G, length, d) that begins with ``part`` (B, G, T, d)."""
    buffer = part.new_empty((*part.shape[:2], length, part.shape[3]))
    buffer[:, :, : part.shape[2]] = part
    return buffer


def filled_parts(caches: Sequence[KeyValues], lengths: Sequence[int]) -> list[KeyValues]:
    """Views of each layer's keys and values up to its length."""
    return [(keys[:, :, :end], values[:, :, :end]) for (keys, values), end in zip(caches, lengths, strict=True)]
