"""What `fopru_graph.comfy.models` meets of ComfyUI's memory management, written anew from facts about it.

The facts are those of the newest sources to be had (ComfyUI 0.38 and later): who is asked what, in which order, and
what happens to the list of loaded models meanwhile. Sizes and free memory are counted, nothing is measured.
"""

from __future__ import annotations

import sys
import types
import weakref
from dataclasses import dataclass
from typing import Any

import torch

CPU = torch.device("cpu")
EVERYTHING = 1e30  # what is asked for when all models are to go


class ModelPatcher:
    """A model that ComfyUI may load and unload. This one moves it as a whole, ComfyUI's own layer by layer."""

    def __init__(self, model: Any, load_device: Any, offload_device: Any, size: int = 0) -> None:
        self.model, self.size = model, size
        self.load_device, self.offload_device = load_device, offload_device
        self.parent = None
        if not hasattr(model, "device"):
            model.device = offload_device
        model.model_loaded_weight_memory = 0

    def model_size(self) -> int:
        return self.size

    def loaded_size(self) -> int:
        return self.model.model_loaded_weight_memory

    def current_loaded_device(self) -> Any:
        return self.model.device

    def is_dynamic(self) -> bool:
        return False

    def is_clone(self, other: Any) -> bool:
        return self.model is other.model

    def partially_load(self, device_to: Any, extra_memory: float = 0, force_patch_weights: bool = False) -> int:
        gained = self.size - self.loaded_size()
        self.model.device, self.model.model_loaded_weight_memory = device_to, self.size
        return gained

    def partially_unload(self, device_to: Any, memory_to_free: float = 0, force_patch_weights: bool = False) -> int:
        freed = min(self.loaded_size(), int(memory_to_free) + 1)
        self.model.model_loaded_weight_memory -= freed
        return freed

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all:
            self.model.device, self.model.model_loaded_weight_memory = self.offload_device, 0
        return self.model


@dataclass
class _Entry:
    """A place in the list of loaded models; it keeps neither patcher nor model alive."""

    patcher: weakref.ref[Any]
    model: weakref.ref[Any]
    end: weakref.finalize

    def unload(self, wanted: float) -> bool:
        """Whether the model leaves the list: not if it can free what is wanted and stay."""
        patcher = self.patcher()
        if wanted < patcher.loaded_size() and patcher.partially_unload(patcher.offload_device, wanted) >= wanted:
            return False
        patcher.detach(True)
        self.end.detach()
        return True


class Management:
    """ComfyUI's management of one device with ``capacity`` bytes.

    Attributes:
        names: of the classes of what was unloaded; ComfyUI reads each *after* the unloading, for its log.
        leaked: how often a model was found whose patcher is gone, of which ComfyUI warns.
    """

    def __init__(self, device: torch.device = CPU, capacity: int = 2**40) -> None:
        self.device, self.capacity = device, capacity
        self.entries: list[_Entry] = []
        self._out: list[Any] = []  # patchers that are out of the list for a moment
        self.names: list[str] = []
        self.leaked = 0

    def install(self, monkeypatch: Any) -> Management:
        """Make this what ``import comfy.model_management`` gives, and `ModelPatcher` what its neighbour has."""
        management, patcher = types.ModuleType("comfy.model_management"), types.ModuleType("comfy.model_patcher")
        for name in ("load_models_gpu", "free_memory", "unload_all_models", "get_torch_device", "get_free_memory"):
            setattr(management, name, getattr(self, name))
        patcher.ModelPatcher = ModelPatcher  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "comfy.model_management", management)
        monkeypatch.setitem(sys.modules, "comfy.model_patcher", patcher)
        return self

    def get_torch_device(self) -> torch.device:
        return self.device

    def get_free_memory(self, device: Any) -> int:
        known = [entry.patcher() for entry in self.entries] + self._out
        return self.capacity - sum(patcher.loaded_size() for patcher in known if patcher.load_device == device)

    def load_models_gpu(self, models: list[Any], memory_required: float = 0) -> None:
        self._check()
        wanted, self._out = list(dict.fromkeys(models)), []
        for patcher in wanted:  # those that are loaded leave the list for a moment, but stay where they are
            for entry in [entry for entry in self.entries if patcher.is_clone(entry.patcher())]:
                self.entries.remove(entry)
                self._out.append(patcher)
                patcher.detach(unpatch_all=False)
                entry.end.detach()
        for device in dict.fromkeys(patcher.load_device for patcher in wanted):
            missing = sum(_missing(patcher) for patcher in wanted if patcher.load_device == device)
            if device != CPU:
                self.free_memory(1.1 * missing + memory_required, device)
        for patcher in wanted:
            room = self.get_free_memory(patcher.load_device)
            patcher.partially_load(patcher.load_device, room, force_patch_weights=False)
            self._out = [other for other in self._out if other is not patcher]
            end = weakref.finalize(patcher.model, self._forget_the_dead)
            end.atexit = False
            self.entries.insert(0, _Entry(weakref.ref(patcher), weakref.ref(patcher.model), end))

    def free_memory(self, memory_required: float, device: Any, keep_loaded: Any = ()) -> None:
        self._check()
        for entry in sorted(self._on(device), key=lambda entry: entry.patcher().model_size()):
            wanted = memory_required - self.get_free_memory(device)
            if wanted > 0 and entry.unload(wanted):
                self.names.append(type(entry.patcher().model).__name__)
                self.entries.remove(entry)

    def unload_all_models(self) -> None:
        self.free_memory(EVERYTHING, self.device)

    def _on(self, device: Any) -> list[_Entry]:
        return [entry for entry in self.entries if entry.patcher().load_device == device]

    def _check(self) -> None:
        self.leaked += sum(entry.patcher() is None and entry.model() is not None for entry in self.entries)

    def _forget_the_dead(self) -> None:
        self.entries = [entry for entry in self.entries if entry.model() is not None]


def _missing(patcher: Any) -> int:
    """Bytes that the device of a patcher still needs; where its model is elsewhere, all of them."""
    there = patcher.current_loaded_device() == patcher.load_device
    return patcher.model_size() - (patcher.loaded_size() if there else 0)
