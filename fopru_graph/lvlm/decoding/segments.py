"""The decoder layers in segments, one up to each cut, each with its own preallocated KV cache.

For stacks that are nothing but embeddings, equal decoder layers and a norm. Hidden states, positions and masks are cut
between segments, without hooks; decoding appends to the caches in place where a stock cache copies itself every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from fopru_graph.lvlm.decoding.kept import Survivors
from fopru_graph.lvlm.decoding.runner import DecoderRunner, KeyValues
from fopru_graph.lvlm.families.capture_qk import capture_qk
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.lvlm.loading.compat import cache_argument

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
HIDDEN = 1 << 40  # the position of keys that no query may see: padding and fillers


def fits_segments(family: Family) -> bool:
    """Whether the family's language model can be run layer by layer: its kind, kernel and placement allow it."""
    config = family.language_model.config
    one_device = len({weight.device for weight in family.language_model.parameters()}) == 1
    plain = family.decoder is family.language_model and config.model_type in MODEL_TYPES
    return plain and config._attn_implementation in ("sdpa", "eager") and one_device


def window_of(config: Any, layer: int) -> int | None:
    """The sliding window of a layer, None where it sees everything."""
    kinds = getattr(config, "layer_types", None)
    if config.model_type == "llama" or (kinds and kinds[layer] != "sliding_attention"):
        return None
    window: int | None = config.sliding_window
    return window


def visibility(queries: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
    """(B, 1, Q, T) bool: which keys at positions ``keys`` (B, T) the queries at ``queries`` (B, Q) may see."""
    query, key = queries[:, None, :, None], keys[:, None, None, :]
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def as_mask(seen: torch.Tensor, config: Any, dtype: torch.dtype) -> torch.Tensor:
    """What a model's attention kernel takes for a mask: bool for sdpa, additive floats for eager."""
    if config._attn_implementation != "eager":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


class LayerCache:
    """Keys and values of one layer in buffers made once; hands out the filled part, as a view."""

    def __init__(self) -> None:
        self.length = 0
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def extend(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> KeyValues:
        """Append (B, G, Q, d) and return all there is; the first call makes room for ``room`` more."""
        begin, self.length = self.length, self.length + keys.shape[2]
        if self._keys is None or self._values is None:
            shape = (*keys.shape[:2], self.length + room, keys.shape[3])
            self._keys, self._values = keys.new_empty(shape), values.new_empty(shape)
        self._keys[:, :, begin : self.length] = keys
        self._values[:, :, begin : self.length] = values
        return (keys, values) if begin == 0 else self.filled()

    def filled(self) -> KeyValues:
        """The keys and values so far."""
        assert self._keys is not None and self._values is not None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]


class SegmentRunner(DecoderRunner):
    """See the module; bit for bit what the stock forward gives on the CPU."""

    def __init__(self, family: Family, prompt: Prompt, survivors: Survivors, room: int) -> None:
        super().__init__(family, prompt, survivors, room)
        self.layers, self.config = family.layers, family.language_model.config
        self.bounds = list(pairwise([0, *survivors.cuts, len(self.layers)]))
        self.caches = [LayerCache() for _ in self.layers]
        self.key_positions: list[torch.Tensor] = []  # (B, M) a segment, HIDDEN where nobody may look
        self._windows = [window_of(self.config, index) for index in range(len(self.layers))]
        self._noted: list[tuple[torch.Tensor, torch.Tensor, float, Any]] = []  # what the next cut ranks by
        self._generated = 0
        self._last = prompt.positions[:, -1:]

    def prefill(self, prefix: Sequence[KeyValues] | None = None) -> torch.Tensor:
        """See `DecoderRunner.prefill`."""
        known = 0 if prefix is None else prefix[0][0].shape[2]
        for cache, (keys, values) in zip(self.caches, prefix or (), strict=False):
            cache.extend(keys, values, self.prompt.embeds.shape[1] - known + self.room)
        x, positions = self.prompt.embeds[:, known:], self.prompt.positions
        for first, end in self.bounds:
            if first:
                places = self.survivors.cut(first, *self._noted.pop())
                x = torch.take_along_dim(x, places[..., None], 1)
                positions = positions.gather(1, places)
            real = self.survivors.at(first).real
            self.key_positions.append(positions.masked_fill(~real, HIDDEN))
            x = self._run(first, end, x, positions[:, known:], real[:, known:])
        return self.logits(x)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`."""
        self._generated += 1
        position = self._last + self._generated
        x = self.family.embed(ids[:, None])
        rotary = self.family.language_model.rotary_emb(x, position)
        for segment, (first, end) in enumerate(self.bounds):
            self.key_positions[segment] = torch.cat([self.key_positions[segment], position], 1)
            masks = self._masks(segment, position, x)
            for index in range(first, end):
                x = self._layer(index, x, masks, rotary, position)
        return self.logits(x)

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return [cache.filled() for cache in self.caches]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) of the last of (B, Q, E) hidden states."""
        return self.family.logits(self.family.language_model.norm(x)[:, -1])

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_options: Any) -> KeyValues:
        """What the layers call on their cache."""
        return self.caches[layer].extend(keys, values, self.room)

    def _run(self, first: int, end: int, x: torch.Tensor, positions: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """One segment of the prefill; notes query, key, scale and mask of its last layer, if a cut follows."""
        rotary = self.family.language_model.rotary_emb(x, positions)
        # Padding and fillers look from the prompt's end, so that no row of a mask is empty.
        masks = self._masks(len(self.key_positions) - 1, torch.where(real, positions, self._last), x)
        last = end - 1 if end < len(self.layers) else end
        for index in range(first, last):
            x = self._layer(index, x, masks, rotary, positions)
        if last < end:
            with capture_qk(self.layers[last].self_attn, lambda *seen: self._noted.append(seen)):
                x = self._layer(last, x, masks, rotary, positions)
        return x

    def _layer(
        self, index: int, x: torch.Tensor, masks: dict[int | None, Any], rotary: Any, positions: torch.Tensor
    ) -> torch.Tensor:
        hidden: torch.Tensor = self.layers[index](
            x,
            attention_mask=masks[self._windows[index]],
            position_embeddings=rotary,
            position_ids=positions,
            use_cache=True,
            **{cache_argument(): self},
        )
        return hidden

    def _masks(self, segment: int, queries: torch.Tensor, x: torch.Tensor) -> dict[int | None, Any]:
        """The mask of every kind of layer in a segment; None where the kernel's own causality says it all."""
        first, end = self.bounds[segment]
        return {window: self._mask(segment, window, queries, x) for window in set(self._windows[first:end])}

    def _mask(self, segment: int, window: int | None, queries: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
        keys = self.key_positions[segment]
        eager = self.config._attn_implementation == "eager"
        whole = queries.shape[1] == keys.shape[1]  # a prefill without a known prefix is causal by itself
        in_window = window is None or self.prompt.embeds.shape[1] + self._generated < window
        ragged = self.survivors.at(self.bounds[segment][0]).ragged
        if not ragged and in_window and (queries.shape[1] == 1 or (whole and not eager)):
            return None
        seen = visibility(queries, keys, window)
        return as_mask(seen, self.config, x.dtype)
