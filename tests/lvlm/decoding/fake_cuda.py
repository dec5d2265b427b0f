"""CUDA graphs without CUDA: tensors lie on the CPU, streams and devices are names, recordings are lists of operations.

As on a GPU, a kernel is recorded only if it is launched on the stream that records, which is that of the device where
the tensors are: simulated ones (`accelerator`) say it themselves, others are at `FakeCuda.home`. Recorded kernels are
not run, and a replay runs them over the same storages, without any Python of the model.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.lvlm.accelerator import DeviceTensor, on_host


def _storages(values):
    tensors = (on_host(leaf) for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _writes(func):
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)


class Recording(TorchDispatchMode):
    """Notes operations on the stream; those that write into tensors are left for the replay."""

    def __init__(self, cuda, kernels, stream):
        super().__init__()
        self.cuda, self.kernels, self.stream = cuda, kernels, stream

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = [leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, DeviceTensor)]
        device = kwargs.get("device", self.cuda.home)
        device = devices[0] if devices else device if device.type == "cuda" else self.cuda.home
        if self.cuda._current_stream(device) is not self.stream:
            return func(*args, **kwargs)
        if _writes(func):
            self.kernels.append((func, args, kwargs, None))
            return args[0]
        out = func(*args, **kwargs)
        if not _storages(out) & _storages((args, kwargs)):  # a view is the same memory in every replay
            self.kernels.append((func, args, kwargs, out))
        return out


@dataclass(eq=False)
class Stream:
    device: torch.device
    waited: list = field(default_factory=list)

    def wait_stream(self, other):
        self.waited.append(other)


class Graph:
    def __init__(self, cuda):
        self.cuda, self.kernels, self.replays = cuda, [], 0
        cuda.graphs.append(self)

    def replay(self):
        self.replays += 1
        self.device = self.cuda.device
        if self.cuda.replays_nothing:
            return
        for func, args, kwargs, out in self.kernels:
            again = func(*args, **kwargs)
            for new, old in zip(tree_leaves(again), tree_leaves(out), strict=True) if out is not None else ():
                if isinstance(old, torch.Tensor):
                    old.copy_(new)
        if self.cuda.replays_other_values:
            self.kernels[-1][-1].add_(1)


class FakeCuda:
    """What `decoding.recorder` uses of ``torch.cuda``, put in its place by `install`."""

    def __init__(self, home="cuda:0"):
        self.home = torch.device(home)  # where the tensors are
        self.device = torch.device("cuda:0")  # the current one
        self.streams = defaultdict(lambda: None)  # the current one of each device, None for a default stream
        self.defaults = {}
        self.graphs, self.recorded, self.pools, self.emptied = [], [], 0, 0
        self.errors = []  # raised by the next recordings; None lets one pass
        self.replays_nothing = self.replays_other_values = False

    def install(self, monkeypatch):
        self.graph_type = lambda: Graph(self)
        for name, value in {
            "Stream": lambda device=None: Stream(torch.device(device or self.device)),
            "CUDAGraph": self.graph_type,
            "graph": self._graph,
            "graph_pool_handle": self._pool,
            "device": self._device,
            "stream": self._stream,
            "current_stream": self._current_stream,
            "empty_cache": self._empty_cache,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        return self

    def _pool(self):
        self.pools += 1
        return ("pool", self.pools)

    def _empty_cache(self):
        self.emptied += 1

    def _current_stream(self, device=None):
        device = torch.device(device or self.device)
        return self.streams[device] or self.defaults.setdefault(device, Stream(device))

    @contextlib.contextmanager
    def _device(self, device):
        before, self.device = self.device, torch.device(device)
        try:
            yield
        finally:
            self.device = before

    @contextlib.contextmanager
    def _stream(self, stream):
        device, before = stream.device, self.streams[stream.device]
        self.streams[device] = stream
        with self._device(device):
            try:
                yield
            finally:
                self.streams[device] = before

    @contextlib.contextmanager
    def _graph(self, graph, pool=None, stream=None, capture_error_mode="global"):
        stream = stream or Stream(self.device)
        error = self.errors.pop(0) if self.errors else None
        self.recorded.append({"device": stream.device, "stream": stream, "pool": pool, "mode": capture_error_mode})
        self.streams[stream.device] = stream  # left so where the recording fails, as torch does
        with Recording(self, graph.kernels, stream):
            yield
        if error is not None:
            raise error
        self.streams[stream.device] = None
