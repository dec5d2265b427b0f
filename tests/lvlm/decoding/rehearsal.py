"""Captures rehearsed on the CPU: every step is recorded as CUDA would record it, and must be what was recorded first.

A graph replays the operations of one run over the storages of that run. So each later run must be the same operations,
with the same numbers from the host, over storages that are the model's, the step's own, or allocated in the run itself,
at the same place of it (from the graph's pool); and the host must not read a value in between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from tests.lvlm.accelerator import INDEXED, READS, SHAPES


class Tape(TorchDispatchMode):
    """Writes down the operations of a ``with`` block; ``known`` names storages that outlive it.

    Raises:
        AssertionError: in the block, an operation needs the host, or a tensor from outside.
    """

    def __init__(self, known: dict[int, str]) -> None:
        super().__init__()
        self._places = dict(known)
        self._held: list[torch.Tensor] = []  # what was allocated stays, or its place could be given out again
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        leaves, form = tree_flatten((args, kwargs or {}))
        masks = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool and leaf.dim()]
        assert name not in READS | SHAPES and not (name in INDEXED and masks), f"{func} needs a value on the host"
        given = [self.place(leaf, func) for leaf in leaves]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.numel():
                pointer = leaf.untyped_storage().data_ptr()
                if pointer not in self._places:
                    self._places[pointer] = f"allocation {len(self._held)}"
                    self._held.append(leaf)
        made = tree_map(lambda leaf: self.place(leaf, func), result)
        self.operations.append((func.name(), str(form), given, made))
        return result

    def place(self, value: Any, user: Any = "the result") -> Any:
        """Where a tensor lies, and its shape; anything else as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        pointer = value.untyped_storage().data_ptr()
        place = self._places.get(pointer) if value.numel() else "nothing"
        assert place is not None, f"{user} takes {tuple(value.shape)} {value.dtype} from outside of the recording"
        return place, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype


class Rehearsal:
    """In the place of `decoding.recorder.Recorder`: each replay is the step itself, held against its recording."""

    recorded = replayed = 0

    def __init__(self, _device: torch.device) -> None: ...

    def record(self, run: Any) -> tuple[Any, list[Any]]:
        Rehearsal.recorded += 1
        return run, self._operations(run)

    def replay(self, graph: tuple[Any, list[Any]]) -> None:
        Rehearsal.replayed += 1
        run, recorded = graph
        found = self._operations(run)
        for number, (first, now) in enumerate(zip(recorded, found, strict=True)):
            assert first == now, f"operation {number} of the step was {first}, and is {now}"

    def release_memory(self) -> None: ...

    @staticmethod
    def _operations(run: Any) -> list[Any]:
        step, family = run.func.__self__, run.args[0]
        weights = {**dict(family.model.named_parameters()), **dict(family.model.named_buffers())}
        buffers = {name: value for name, value in vars(step).items() if name != "_logits"}
        leaves = {f"{name} {i}": leaf for name, value in buffers.items() for i, leaf in enumerate(tree_leaves(value))}
        tensors = {n: t for n, t in (weights | leaves).items() if isinstance(t, torch.Tensor)}
        with Tape({tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items()}) as tape:
            run()
        return [*tape.operations, tape.place(step._logits)]
