"""Decoding as one step of fixed shape, captured as a CUDA graph where there is CUDA.

A step of a small batch is bound by kernel launches, not by the bytes it reads; a captured step is launched at once. Its
buffers never move and never change their shape: caches are as long as they may ever get (in steps of `BUCKET`, so
that prompts of similar length share a graph), and keys that are not there yet are hidden by their position.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fopru_graph.lvlm.decoding.runner import KeyValues
from fopru_graph.lvlm.decoding.segments import HIDDEN, SegmentRunner, as_mask, visibility, window_of
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.lvlm.loading.device import total_memory

BUCKET = 128
SHARE = 3  # a model keeps steps for later prompts in up to a third of its device's memory, the latest used ones


def can_capture(device: torch.device) -> bool:
    """Whether steps on a device can become CUDA graphs at all."""
    return device.type == "cuda"


@dataclass(frozen=True)
class StepShape:
    """What a step's buffers depend on: samples, and for each segment its layers and the length of its caches."""

    batch: int
    bounds: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]


class CapturedStep:
    """One decoding step over buffers of its own; the same object serves every prompt of its `StepShape`."""

    def __init__(self, family: Family, shape: StepShape, like: Sequence[KeyValues]) -> None:
        self._family, self._shape = family, shape
        config = family.language_model.config
        self._windows = [window_of(config, index) for index in range(len(like))]
        device = family.device
        self._ids = torch.zeros(shape.batch, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros(shape.batch, 1, dtype=torch.int64, device=device)
        self._slots = [torch.zeros(1, dtype=torch.int64, device=device) for _ in shape.bounds]
        self._key_positions = [
            torch.full((shape.batch, length), HIDDEN, dtype=torch.int64, device=device) for length in shape.lengths
        ]
        self._segment_of = [s for s, (first, end) in enumerate(shape.bounds) for _ in range(first, end)]
        # Zeros, because a hidden key counts with weight 0, and 0 times what lies in fresh memory may be NaN.
        self._caches = [tuple(self._buffer(one, index) for one in pair) for index, pair in enumerate(like)]
        self._replay: Callable[[], None] | None = None
        self._logits: torch.Tensor

    def load(self, stack: SegmentRunner) -> None:
        """Take over a finished prefill."""
        for buffers, filled in zip(self._caches, stack.reusable(), strict=True):
            for buffer, one in zip(buffers, filled, strict=True):
                buffer[:, :, : one.shape[2]] = one
        for slot, places, known in zip(self._slots, self._key_positions, stack.key_positions, strict=True):
            slot.fill_(known.shape[1])
            places.fill_(HIDDEN)
            places[:, : known.shape[1]] = known
        self._position.copy_(stack.prompt.positions[:, -1:])

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Append ``ids`` (B,) and return the logits (B, V) that follow, in a tensor that the next call overwrites."""
        self._ids.copy_(ids[:, None])
        if self._replay is not None:
            self._replay()
        else:
            self._logits = self._run()
        return self._logits

    def capture(self) -> None:
        """Record the step as a CUDA graph; it must have run once before. Nothing is computed meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._run()
        self._replay = graph.replay

    @property
    def captured(self) -> bool:
        """Whether calls replay a CUDA graph."""
        return self._replay is not None

    @property
    def kv_bytes(self) -> int:
        """Size of the caches."""
        return sum(buffer.numel() * buffer.element_size() for pair in self._caches for buffer in pair)

    def filled(self, lengths: Sequence[int]) -> list[KeyValues]:
        """Each layer's keys and values up to its length."""
        return [
            (keys[:, :, :length], values[:, :, :length])
            for (keys, values), length in zip(self._caches, lengths, strict=True)
        ]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_options: Any
    ) -> tuple[torch.Tensor, ...]:
        """What the layers call on their cache: write in place, see all of it."""
        slot = self._slots[self._segment_of[layer]]
        for buffer, one in zip(self._caches[layer], (keys, values), strict=True):
            buffer.index_copy_(2, slot, one)
        return self._caches[layer]

    def _buffer(self, like: torch.Tensor, layer: int) -> torch.Tensor:
        length = self._shape.lengths[self._segment_of[layer]]
        return like.new_zeros(*like.shape[:2], length, like.shape[3])

    def _run(self) -> torch.Tensor:
        self._position += 1
        language = self._family.language_model
        x = self._family.embed(self._ids)
        rotary = language.rotary_emb(x, self._position)
        for slot, places, (first, end) in zip(self._slots, self._key_positions, self._shape.bounds, strict=True):
            places.index_copy_(1, slot, self._position)
            windows = set(self._windows[first:end])
            masks = {w: as_mask(visibility(self._position, places, w), language.config, x.dtype) for w in windows}
            for index in range(first, end):
                x = self._family.layers[index](
                    x,
                    attention_mask=masks[self._windows[index]],
                    position_embeddings=rotary,
                    position_ids=self._position,
                    use_cache=True,
                    **{cache_argument(): self},
                )
            slot += 1
        return self._family.logits(language.norm(x)[:, -1])


class CapturedRunner(SegmentRunner):
    """Prefill as in `SegmentRunner`, then steps of fixed shape."""

    _step: CapturedStep | None = None
    _steps = 0

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`; the first one takes over the caches."""
        if self._step is None:
            self._step = self._prepared()
            self._step.load(self)
        self._steps += 1
        logits = self._step(ids)
        if not self._step.captured and not self.family.uncapturable and can_capture(ids.device):
            self._capture(self._step)
        return logits

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        if self._step is None:
            return super().filled()
        return self._step.filled([cache.length + self._steps for cache in self.caches])

    def reusable(self) -> list[KeyValues]:
        """See `DecoderRunner.reusable`: the prefill's own, because the step's buffers serve the next prompt too."""
        return super().filled()

    def _prepared(self) -> CapturedStep:
        """A step of this prompt's shape, from the model's store or new."""
        store: OrderedDict[StepShape, CapturedStep] = self.family.steps
        lengths = [places.shape[1] + self.room for places in self.key_positions]
        buckets = tuple(-(-length // BUCKET) * BUCKET for length in lengths)
        shape = StepShape(len(self.prompt.embeds), tuple(self.bounds), buckets)
        step = store.pop(shape, None) or CapturedStep(self.family, shape, super().filled())
        store[shape] = step
        budget = total_memory(self.family.device) // SHARE
        while len(store) > 1 and sum(one.kv_bytes for one in store.values()) > budget:
            store.popitem(last=False)
        return step

    def _capture(self, step: CapturedStep) -> None:
        """Capture, or go on without: a step that cannot be captured runs kernel by kernel and is as right."""
        try:
            step.capture()
        except RuntimeError as error:
            self.family.uncapturable = True
            warnings.warn(f"decoding is not captured as a CUDA graph and may be slower: {error}", stacklevel=2)
