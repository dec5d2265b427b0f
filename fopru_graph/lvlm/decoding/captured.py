"""Decoding as one step of fixed shape, captured as a CUDA graph where there is CUDA.

A step of a small batch is bound by kernel launches, not by the bytes it reads; a captured step is launched at once. Its
buffers never move and never change their shape: caches have room for a while (in coarse lengths, see `bucket`, so that
prompts of similar length share a graph), and keys that are not there yet are hidden by their position. Where an answer
fills them, a step with longer ones takes over.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from fopru_graph.errors import Caution, first_line
from fopru_graph.lvlm.decoding.masks import HIDDEN, additive_mask
from fopru_graph.lvlm.decoding.recorder import Recorder, out_of_memory
from fopru_graph.lvlm.decoding.runner import KeyValues
from fopru_graph.lvlm.decoding.segments import BLOCK, SegmentRunner, filled_parts, split_layers
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.device import free_memory

BUCKET = 256  # the shortest caches
WORTH = 32  # steps to come that are worth a capture, which costs about as much as a few steps without one
MEMORY_SHARE = 3  # a model keeps its latest used steps in up to a third of the memory that its weights leave


def capture_device(family: Family) -> torch.device | None:
    """The device on which a model's steps can become CUDA graphs; None if there is no CUDA or capturing failed."""
    return family.device if family.device.type == "cuda" and not family.uncapturable else None


def bucket(tokens: int) -> int:
    """The length of caches for so many tokens: at most a quarter of it, or less than `BUCKET` tokens, are too many."""
    step = max(BUCKET, 2 ** max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


class CapturedStep:
    """One decoding step over its buffers; the same object serves every prompt of the same shape.

    It holds the model's layers, not the family: the family holds its steps, and a circle would keep weights in memory
    until Python looks for circles.

    Args:
        family: the model.
        axes: the axes of the model's positions, if it has several, and the samples: (B,) or (P, B).
        cuts: the layers from which on a prompt is shorter.
        lengths: tokens that the caches of each segment hold.
        caches: each layer's keys and values (B, G, length of its segment, d), which the step writes to from now on.
            They are finite throughout: a hidden key counts with weight 0, and 0 times what fresh memory holds may be
            NaN.
    """

    def __init__(
        self,
        family: Family,
        axes: Sequence[int],
        cuts: Sequence[int],
        lengths: Sequence[int],
        caches: Sequence[KeyValues],
    ) -> None:
        self._segments = split_layers(family, cuts)
        zeros = partial(torch.zeros, dtype=torch.int64, device=family.device)
        batch = axes[-1]
        self._ids, self.position, self.offset = zeros(batch, 1), zeros(batch, 1), zeros(*axes, 1)
        self._slots = [zeros(1) for _ in self._segments]  # where in its caches each segment writes the next token
        self.key_positions = [zeros(batch, length) for length in lengths]
        self._segment_of = [segment.index for segment in self._segments for _ in segment.layers]
        self.caches = list(caches)
        self._logits: torch.Tensor
        self.prompts = 0  # how often `load` was called
        self.capturable = True  # no capture of it failed for want of memory
        self._recorder: Recorder | None = None
        self.captured: torch.cuda.CUDAGraph | None = None  # what calls replay, once `capture` was called

    def load(
        self,
        filled: Sequence[KeyValues],
        key_positions: Sequence[torch.Tensor],
        last: torch.Tensor,
        offset: torch.Tensor,
    ) -> None:
        """Take over each layer's keys and values, each segment's positions (B, T) and the last position (B, 1).

        ``offset`` is what the positions that the model embeds are ahead of these.
        """
        for buffers, pair in zip(self.caches, filled, strict=True):
            for buffer, part in zip(buffers, pair, strict=True):
                if buffer.data_ptr() != part.data_ptr():  # else they were computed in place
                    buffer[:, :, : part.shape[2]] = part
        for slot, buffer, known in zip(self._slots, self.key_positions, key_positions, strict=True):
            slot.fill_(known.shape[1])
            buffer.fill_(HIDDEN)
            buffer[:, : known.shape[1]] = known
        self.position.copy_(last)
        self.offset.copy_(offset)
        self.prompts += 1

    def __call__(self, family: Family, ids: torch.Tensor) -> torch.Tensor:
        """Append ``ids`` (B,) and return the logits (B, V) that follow, in a tensor that the next call overwrites."""
        self._ids.copy_(ids[:, None])
        if self.captured is None or self._recorder is None:
            self._run(family)
        else:
            self._recorder.replay(self.captured)
        return self._logits

    def capture(self, family: Family, recorder: Recorder) -> None:
        """Record the step as a CUDA graph, after a call, which is done again to see that its replay gives the same.

        Raises:
            RuntimeError: it cannot be recorded, its replay gives other logits, or the device has no memory left. The
                step is then as it was after the call.
        """
        expected, counters = self._logits, [self.position, *self._slots]
        before = [counter - 1 for counter in counters]
        try:
            graph = recorder.record(partial(self._run, family))
            _set(counters, before)
            self._logits.fill_(torch.nan)  # what a replay that does nothing would leave there may look right
            recorder.replay(graph)
            if not _same(self._logits, expected):
                raise RuntimeError("its replay gives other logits than the step itself")
        except RuntimeError:
            _set(counters, before)
            self._run(family)  # whatever the attempt wrote is written anew
            raise
        self._recorder, self.captured = recorder, graph

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

    def _run(self, family: Family) -> None:
        language, position = family.language_model, self.position
        position += 1
        hidden = family.embed(self._ids)
        rotary = family.rotary(hidden, position + self.offset)
        for segment, slot, keys in zip(self._segments, self._slots, self.key_positions, strict=True):
            keys.index_copy_(1, slot, position)
            mask = partial(additive_mask, position, keys, hidden.dtype)
            hidden = segment.run(hidden, rotary, self, mask)
            slot += 1
        self._logits = family.logits(language.norm(hidden)[:, -1])


def _set(counters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for counter, value in zip(counters, values, strict=True):
        counter.copy_(value)


def _same(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal in half of their digits: a recorded matrix product may be split in another way, and round in another."""
    bound = torch.finfo(expected.dtype).eps ** 0.5 * expected.nan_to_num().abs().max().item()
    return torch.allclose(logits, expected, rtol=0, atol=bound, equal_nan=True)


class CapturedRunner(SegmentRunner):
    """Prefill as in `SegmentRunner`, into the step's buffers where they are known before, then steps of fixed shape."""

    loop = "static"
    _step: CapturedStep | None = None
    _ready: CapturedStep | None = None
    _steps = 0

    def prefill(self) -> torch.Tensor:
        """See `DecoderRunner.prefill`."""
        if not self.cuts.layers:  # with cuts, the lengths are known only when they are made
            self._ready = self.family.steps.get(self._shape([self.prompt.embeds.shape[1]]))
        return super().prefill()

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`; the first one takes over the caches, and so does one that finds them full."""
        if self._step is None:
            self._step = self._stored_step(self._caches)
            self._step.load(super().filled(), self.key_positions, self._position, self._offset)
            self._caches = []  # held once: the step's buffers are these, or have a copy
        elif any(known == buffer.shape[1] for known, buffer in self._known(self._step)):
            full = self._step
            self.once |= {self._steps}
            self._step = self._stored_step(None)
            known_positions = [buffer[:, :known] for known, buffer in self._known(full)]
            self._step.load(self._filled(full), known_positions, full.position, full.offset)
        self._steps += 1
        logits = self._step(self.family, ids)
        seen_again, left = self._step.prompts > 1, self.room - self._steps
        if self._step.captured is None and self._step.capturable and (seen_again or left >= WORTH):
            self._capture(self._step)
        return logits

    def _capture(self, step: CapturedStep) -> None:
        """Capture ``step`` where that is possible; where not, it runs kernel by kernel and is as right."""
        device = capture_device(self.family)
        if device is None:
            return
        self.once |= {self._steps - 1}
        recorder: Recorder = self.family.recorder or Recorder(device)
        self.family.recorder = recorder
        failure = _failure(partial(step.capture, self.family, recorder))
        if failure is not None and failure.memory:
            self._free_all_but(step)
            failure = _failure(partial(step.capture, self.family, recorder))
        if failure is None:
            return
        if failure.memory:
            step.capturable = False  # another one may find more memory
        else:
            self.family.uncapturable = True
        says = f"decoding is not captured as a CUDA graph and may be slower: {failure.reason}"
        warnings.warn(says, Caution, stacklevel=3)

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return super().filled() if self._step is None else self._filled(self._step)

    def _buffers(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> KeyValues:
        if self._ready is not None:
            return self._ready.caches[layer]
        length = self._length(self.key_positions[-1].shape[1])
        return _zeros(keys, length), _zeros(values, length)

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

    def _length(self, tokens: int) -> int:
        """The length of caches that hold so many tokens of the prompt now."""
        return bucket(tokens + min(self.room, max(BLOCK, 2 * self._steps)))

    def _shape(self, tokens: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """What prompts that share a step agree in; each segment sees so many tokens of this one."""
        axes = tuple(self.prompt.positions.shape[:-1])
        return axes, tuple(self.cuts.layers), tuple(map(self._length, tokens))

    def _stored_step(self, caches: Sequence[KeyValues] | None) -> CapturedStep:
        """The model's step of this prompt's shape, or a new one; the oldest go where memory is short.

        A new one takes ``caches`` over, or longer ones than the step before if there are none.
        """
        store: OrderedDict[Any, CapturedStep] = self.family.steps
        shape = self._shape([positions.shape[1] for positions in self.key_positions])
        step = store.pop(shape, None)
        if step is None:
            if caches is None:
                lengths = [shape[2][segment.index] for segment in self.segments for _ in segment.layers]
                layers = zip(self.filled(), lengths, strict=True)
                caches = [(_zeros(keys, length), _zeros(values, length)) for (keys, values), length in layers]
            step = CapturedStep(self.family, *shape, caches)
        store[shape] = step
        while len(store) > 1 and self._too_large(store.values()):
            store.popitem(last=False)
        return step

    def _too_large(self, steps: Iterable[CapturedStep]) -> bool:
        """Whether the steps take more than their share of the memory that they and nobody have."""
        held = sum(step.kv_bytes for step in steps)
        return held > (free_memory(self.family.device) + held) // MEMORY_SHARE

    def _free_all_but(self, step: CapturedStep) -> None:
        """Free what only makes later runs faster."""
        store = self.family.steps
        for shape in [shape for shape, stored in store.items() if stored is not step]:
            del store[shape]
        self.family.last_prompt = None
        self.family.recorder.release_memory()


def _zeros(part: torch.Tensor, length: int) -> torch.Tensor:
    """A buffer (B, G, length, d) for what is like ``part`` (B, G, T, d)."""
    return part.new_zeros((*part.shape[:2], length, part.shape[3]))


class _Failure(NamedTuple):
    """What is left of an error; itself it would keep the tensors of its frames in memory."""

    reason: str
    memory: bool


def _failure(attempt: Callable[[], None]) -> _Failure | None:
    try:
        attempt()
    except RuntimeError as error:
        return _Failure(first_line(error), out_of_memory(error))
    return None
