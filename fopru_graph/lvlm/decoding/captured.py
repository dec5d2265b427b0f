"""Decoding as one step of fixed shape, captured as a CUDA graph where there is CUDA.

A step of a small batch is bound by kernel launches, not by the bytes it reads; a captured step is launched at once. Its
buffers never move and never change their shape: caches have room for a while (in multiples of `BUCKET`, so that prompts
of similar length share a graph), and keys that are not there yet are hidden by their position. Where an answer fills
them, a step with longer ones takes over.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from fopru_graph.errors import Caution
from fopru_graph.lvlm.decoding.masks import HIDDEN, kernel_mask
from fopru_graph.lvlm.decoding.runner import KeyValues
from fopru_graph.lvlm.decoding.segments import BLOCK, SegmentRunner, filled_parts, split_layers
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.device import total_memory

BUCKET = 128
MEMORY_SHARE = 3  # a model keeps its latest used steps in up to a third of its device's memory


def can_capture(device: torch.device) -> bool:
    """Whether steps on a device can become CUDA graphs at all."""
    return device.type == "cuda"


class CapturedStep:
    """One decoding step over its buffers; the same object serves every prompt of the same shape.

    Args:
        family: the model.
        batch: samples.
        cuts: the layers from which on a prompt is shorter.
        lengths: tokens that the caches of each segment hold.
        filled: keys and values of a finished prefill, of which each layer's sizes and dtype are taken.
    """

    def __init__(
        self, family: Family, batch: int, cuts: Sequence[int], lengths: Sequence[int], filled: Sequence[KeyValues]
    ) -> None:
        self._family, self._segments = family, split_layers(family, cuts)
        zeros = partial(torch.zeros, dtype=torch.int64, device=family.device)
        self._ids, self.position = zeros(batch, 1), zeros(batch, 1)
        self._slots = [zeros(1) for _ in self._segments]  # where in its caches each segment writes the next token
        self.key_positions = [zeros(batch, length) for length in lengths]
        self._segment_of = [segment.index for segment in self._segments for _ in segment.layers]
        # Zeros, because a hidden key counts with weight 0, and 0 times what lies in fresh memory may be NaN.
        self.caches: list[KeyValues] = []
        for (keys, values), segment in zip(filled, self._segment_of, strict=True):
            shape = (*keys.shape[:2], lengths[segment], keys.shape[3])
            self.caches.append((keys.new_zeros(shape), values.new_zeros(shape)))
        self._logits: torch.Tensor
        self.captured: torch.cuda.CUDAGraph | None = None  # what calls replay, once `capture` was called

    def load(self, filled: Sequence[KeyValues], key_positions: Sequence[torch.Tensor], last: torch.Tensor) -> None:
        """Take over each layer's keys and values, each segment's positions (B, T) and the last position (B, 1)."""
        for buffers, pair in zip(self.caches, filled, strict=True):
            for buffer, part in zip(buffers, pair, strict=True):
                buffer[:, :, : part.shape[2]] = part
        for slot, buffer, known in zip(self._slots, self.key_positions, key_positions, strict=True):
            slot.fill_(known.shape[1])
            buffer.fill_(HIDDEN)
            buffer[:, : known.shape[1]] = known
        self.position.copy_(last)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Append ``ids`` (B,) and return the logits (B, V) that follow, in a tensor that the next call overwrites."""
        self._ids.copy_(ids[:, None])
        if self.captured is None:
            self._run()
        else:
            self.captured.replay()
        return self._logits

    def capture(self) -> None:
        """Record the step as a CUDA graph; it must have run once before. Nothing is computed meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self.captured = graph

    @property
    def kv_bytes(self) -> int:
        """Size of the caches."""
        return sum(buffer.numel() * buffer.element_size() for pair in self.caches for buffer in pair)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_options: Any) -> KeyValues:
        """What the layers call on their cache: write in place, return the whole buffers."""
        slot = self._slots[self._segment_of[layer]]
        for buffer, new in zip(self.caches[layer], (keys, values), strict=True):
            buffer.index_copy_(2, slot, new)
        return self.caches[layer]

    def _run(self) -> None:
        language, position = self._family.language_model, self.position
        position += 1
        hidden = self._family.embed(self._ids)
        rotary = language.rotary_emb(hidden, position)
        for segment, slot, keys in zip(self._segments, self._slots, self.key_positions, strict=True):
            keys.index_copy_(1, slot, position)
            mask = partial(kernel_mask, position, keys, language.config, hidden.dtype)
            hidden = segment.run(hidden, position, rotary, self, mask)
            slot += 1
        self._logits = self._family.logits(language.norm(hidden)[:, -1])


class CapturedRunner(SegmentRunner):
    """Prefill as in `SegmentRunner`, then steps of fixed shape."""

    loop = "static"
    _step: CapturedStep | None = None
    _steps = 0

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`; the first one takes over the caches, and so does one that finds them full."""
        if self._step is None:
            self._step = self._stored_step()
            self._step.load(super().filled(), self.key_positions, self.prompt.positions[:, -1:])
        elif any(known == buffer.shape[1] for known, buffer in self._known(self._step)):
            full = self._step
            self.once |= {self._steps}
            self._step = self._stored_step()
            known_positions = [buffer[:, :known] for known, buffer in self._known(full)]
            self._step.load(self._filled(full), known_positions, full.position)
        self._steps += 1
        logits = self._step(ids)
        if self._step.captured is None and not self.family.uncapturable and can_capture(ids.device):
            try:
                self._step.capture()
            except RuntimeError as error:  # a step that cannot be captured runs kernel by kernel and is as right
                self.family.uncapturable = True
                warnings.warn(
                    f"decoding is not captured as a CUDA graph and may be slower: {error}", Caution, stacklevel=2
                )
        return logits

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return super().filled() if self._step is None else self._filled(self._step)

    def reusable(self) -> list[KeyValues]:
        """See `DecoderRunner.reusable`: the caches of the prefill, because the step serves the next prompt too."""
        return super().filled()

    @property
    def captured(self) -> bool:
        """See `DecoderRunner.captured`; a step is captured when it runs first in an answer, which `once` has."""
        return self._step is not None and self._step.captured is not None

    def _filled(self, step: CapturedStep) -> list[KeyValues]:
        return filled_parts(step.caches, [length + self._steps for length in self.lengths])

    def _known(self, step: CapturedStep) -> list[tuple[int, torch.Tensor]]:
        """How many keys each segment has, and the buffer (B, T) of their positions."""
        counts = [positions.shape[1] + self._steps for positions in self.key_positions]
        return list(zip(counts, step.key_positions, strict=True))

    def _stored_step(self) -> CapturedStep:
        """The model's step of this prompt's shape, or a new one; the oldest go where memory is short."""
        store: OrderedDict[Any, CapturedStep] = self.family.steps
        room = min(self.room, max(BLOCK, 2 * self._steps))
        lengths = (positions.shape[1] + room for positions in self.key_positions)
        shape = len(self.prompt.embeds), tuple(self.cuts.layers), tuple(-(-n // BUCKET) * BUCKET for n in lengths)
        step = store.pop(shape, None) or CapturedStep(self.family, *shape, super().filled())
        store[shape] = step
        budget = total_memory(self.family.device) // MEMORY_SHARE
        while len(store) > 1 and sum(stored.kv_bytes for stored in store.values()) > budget:
            store.popitem(last=False)
        return step
