"""Simulated CUDA devices for the CPU build: tensors that say they are on ``cuda:0``, and a host that must not wait.

A `DeviceTensor` holds its values in a tensor of the host, so that whole pipelines run and give the same answers, bit
for bit. `Accelerator` stands between the two sides and writes down where the host would wait for a real device:

* reading a value of a device tensor on the host (``item``, ``tolist``, ``bool``, ``int``),
* shapes that follow from values on the device (``nonzero``, boolean indices, ``unique``),
* copies between the two sides that the host waits for: all but those from pinned memory with ``non_blocking=True``.

It refuses operations on tensors of both sides (numbers without dimensions may come from the host) and on those of two
devices, as CUDA does.

FakeTensorMode would make the host's tensors fake too, whose values (counts, grids, token ids) pipelines rightly read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE, HOST = torch.device("cuda:0"), torch.device("cpu")
READS = {"item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"}
SHAPES = {"nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount"}
SHAPES |= {"_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"to", "_to_copy", "copy_", "pin_memory", "_pin_memory", "is_pinned", "type_as"}


class Wait(NamedTuple):
    """The host would wait for the device: in which function of ours or of transformers, and for what."""

    place: str
    what: str


class DeviceTensor(torch.Tensor):
    """Says that it is on the device ``place``; ``values`` holds what is in it."""

    values: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, values: torch.Tensor, place: torch.device = DEVICE) -> DeviceTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="meta",  # what C++ sees: the CPU build has no guard for CUDA devices
        )
        made.values, made.place = values, place
        return made

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, {self.place})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        return self.cpu().numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a device tensor outside the simulated device")


def on_host(value: Any) -> Any:
    """The tensor that holds a device tensor's values; anything else as it is."""
    return value.values if isinstance(value, DeviceTensor) else value


def _place(value: Any) -> torch.device | None:
    return value.place if isinstance(value, DeviceTensor) else None


def _target(named: Any, given: torch.device | None) -> torch.device | None:
    """The device that an operation on tensors of ``given`` means by ``named``; None is the host."""
    if named is None:
        return given
    if named.type == "cuda":
        return DEVICE if named.index is None else named
    return (given or DEVICE) if named.type == "meta" else None


class Accelerator(TorchDispatchMode):
    """Runs operations where their tensors are; ``waits`` are the times that the host waited for a device.

    ``used`` are the devices that operations made tensors on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.used: set[torch.device] = set()
        self._pinned: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.name().removeprefix("aten::").split(".")[0]
        flat = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
        if name in COPIES:
            return self._copy(func, name, args, kwargs)
        places = {part.place for part in flat if isinstance(part, DeviceTensor)}
        if len(places) > 1:
            raise RuntimeError(f"{func} mixes tensors of {' and '.join(sorted(map(str, places)))}")
        if places:
            self._check(func, name, flat, args)
        made_on = kwargs.pop("device", None)
        target = _target(made_on, *(places or {None}))
        if made_on is not None:
            kwargs["device"] = HOST
        result = func(*tree_map(on_host, args), **tree_map(on_host, kwargs))
        if target is None:
            return result
        self.used.add(target)
        if name.endswith("_") and not name.endswith("__") and isinstance(args[0], DeviceTensor):
            return args[0]
        return tree_map(lambda value: DeviceTensor(value, target) if isinstance(value, torch.Tensor) else value, result)

    def _check(self, func: Any, name: str, flat: Sequence[torch.Tensor], args: Any) -> None:
        if name in READS:
            self._wait(f"{func} reads a value of the device")
        if name in SHAPES or func.name() in ("aten::where", "aten::repeat_interleave.Tensor"):
            self._wait(f"{func} makes a shape of the device's values")
        if name in INDEXED:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self._wait(f"{func} takes a mask, whose values make the shape")
        mixed = [part for part in flat if not isinstance(part, DeviceTensor) and part.dim()]
        if mixed and name not in INDEXED:
            raise RuntimeError(f"{func} mixes the device and a host tensor of {tuple(mixed[0].shape)}")
        if mixed:  # PyTorch copies indices over, and waits
            self._wait(f"{func} takes an index or value of {tuple(mixed[0].shape)} from the host")

    def _copy(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Conversions and copies, which may cross between the sides."""
        tensor = args[0]
        if "pinned" in name:
            return any(tensor is known for known in self._pinned)
        if "pin_memory" in name:
            self._pinned.append(tensor.clone())
            return self._pinned[-1]
        bound = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
        source, there = tensor, _place(tensor)
        if name == "copy_":
            source, target = bound["src"], there
            there = _place(source)
        else:
            like = bound.get("other")
            target = _place(like) if like is not None else _target(bound.get("device"), there)
        if there != target and None in (there, target) and source.numel():
            ready = bound.get("non_blocking") and (there is None and any(source is known for known in self._pinned))
            if not ready:
                self._wait(f"{func} copies {tuple(source.shape)} {'to' if target else 'from'} the device and waits")
        self.used |= {place for place in (there, target) if place is not None}
        changed = {
            k: torch.device("cpu") if isinstance(v, torch.device) else v for k, v in kwargs.items() if k != "pin_memory"
        }
        plain = [torch.device("cpu") if isinstance(v, torch.device) else on_host(v) for v in args]
        result = func(*plain, **tree_map(on_host, changed))
        if name == "copy_":
            return tensor
        if target == there and result is on_host(tensor):
            return tensor
        if target != there and result is on_host(tensor):
            result = result.clone()
        return DeviceTensor(result, target) if target else result

    def made_of_values(self, make: Any) -> Any:
        """``torch.tensor`` and its like, which on a device copy from the host and wait."""

        def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
            if device is None or torch.device(device).type != "cuda" or isinstance(data, DeviceTensor):
                return make(data, *args, **kwargs)
            if isinstance(data, torch.Tensor) or len(data):
                self._wait(f"{make.__name__} copies values to the device and waits")
            return DeviceTensor(make(data, *args, **kwargs), _target(torch.device(device), None) or DEVICE)

        return made

    def _wait(self, what: str) -> None:
        frame = sys._getframe(1)
        while frame.f_back and not frame.f_globals.get("__name__", "").startswith(("fopru_graph", "transformers")):
            frame = frame.f_back
        self.waits.append(Wait(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}", what))


def move(module: torch.nn.Module, place: torch.device = DEVICE) -> Callable[[], None]:
    """All weights and buffers of a model to a simulated device; returns what brings them back."""
    held = [(part, dict(part._parameters), dict(part._buffers)) for part in module.modules()]
    known: dict[int, torch.nn.Parameter] = {}
    for part, weights, buffers in held:
        for name, weight in weights.items():
            if weight is not None:
                there = DeviceTensor(weight.data, place)
                part._parameters[name] = known.setdefault(id(weight), torch.nn.Parameter(there, requires_grad=False))
        for name, buffer in buffers.items():
            if buffer is not None:
                part._buffers[name] = DeviceTensor(buffer, place)

    def back() -> None:
        for part, weights, buffers in held:
            part._parameters.update(weights)
            part._buffers.update(buffers)

    return back


@contextlib.contextmanager
def simulated() -> Iterator[Accelerator]:
    """The simulated devices for the time of a ``with`` block."""
    device = Accelerator()
    with (
        mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
        mock.patch.object(torch, "tensor", device.made_of_values(torch.tensor)),
        mock.patch.object(torch, "as_tensor", device.made_of_values(torch.as_tensor)),
        torch.inference_mode(),
        device,
    ):
        yield device
