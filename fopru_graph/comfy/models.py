"""Models inside ComfyUI: loaded once, given back on *Free memory*, and off the GPU while others need it.

What the calls of nodes use:

* ``load_shared(key, make) -> ModelHandle`` in place of running a node that loads a model. ``key`` is hashable and equal
  for equal inputs, e.g. the node's type and its fingerprint as JSON. ``make()`` runs the node. It may be called again
  in a later job, when weights that cannot be moved were freed and are needed again, so it must hold no handle.
* ``ready(values)`` before any other node runs, with all its input values, in lists and dicts too: brings the models
  among them back to their device. It makes room there through ComfyUI, and raises what torch raises if there is none.

Both work without ComfyUI, and with a ComfyUI whose management has changed: models then stay where they were loaded, one
warning is logged, and nothing is shared beyond ComfyUI's own cache.

How it works. ComfyUI's cache drops the outputs of other workflows, so the model that was used last is held here: one,
because a second would take the memory of the first once more. ComfyUI knows it by a patcher, which it unloads on *Free
memory* and when other models need the device. Then nothing is held here any longer: the weights of a model that is
still in ComfyUI's cache go to the CPU, all others are freed. Weights are never half moved. Those that cannot be moved
at all (quantised, spread over devices), or for which the CPU has no room, are freed and read anew by the next run.
"""

from __future__ import annotations

import functools
import importlib
import logging
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from fopru_graph.errors import first_line
from fopru_graph.values import ModelHandle

if TYPE_CHECKING:
    import torch

Make = Callable[[], ModelHandle]
_log = logging.getLogger(__name__)


class Residence:
    """Where the weights of a model are, and how they leave their device and come back. It keeps no model alive.

    Attributes:
        handle: a weak reference to the model's handle.
        home: the device on which the model computes.
        size: bytes of its weights there.
        loaded: whether they are there.
    """

    def __init__(self, handle: ModelHandle, make: Make) -> None:
        from fopru_graph.lvlm.loading.moving import bytes_on, is_movable

        self.handle, self._make = weakref.ref(handle), make
        self.home: torch.device = handle.family.device
        self.size = bytes_on(handle.family, self.home)
        self.loaded = True
        self._movable = is_movable(handle.family)

    def enter(self) -> None:
        """Bring the weights to their device; raises what torch raises where it has no memory for them."""
        from fopru_graph.lvlm.loading.moving import move

        handle = self.handle()
        if handle is None or self.loaded:
            return
        family = handle.family
        if family.model is None:
            family.model = self._make().family.model
        else:
            move(family, self.home)
        self.loaded = True

    def leave(self) -> int:
        """Give the device's memory back; returns the bytes. The CPU keeps what it has: it is where others go."""
        import torch

        from fopru_graph.lvlm.loading.device import free_memory
        from fopru_graph.lvlm.loading.moving import move

        handle, cpu = self.handle(), torch.device("cpu")
        if handle is None or not self.loaded or self.home == cpu:
            return 0
        if self._movable and self.size < free_memory(cpu):
            move(handle.family, cpu)
        else:
            with handle.family.lock:
                handle.family.forget()
                handle.family.model = None
        self.loaded = False
        return self.size


class SharedModels:
    """The models of a process that runs ComfyUI; `load_shared` and `ready` of this module are those of one of these."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[Hashable, ModelHandle] = WeakValueDictionary()
        self._residences: WeakKeyDictionary[ModelHandle, Residence] = WeakKeyDictionary()
        self._patchers: WeakKeyDictionary[ModelHandle, Any] = WeakKeyDictionary()
        self._held: ModelHandle | None = None
        self._unloaded: Any = None  # the patcher that was unloaded last: ComfyUI names it in its log afterwards
        self._managed = True

    def load_shared(self, key: Hashable, make: Make) -> ModelHandle:
        """See the module; raises what ``make`` raises."""
        handle = self._known.get(key)
        if handle is None:
            self._held = None
            handle = self._made(make)
            self._known[key], self._residences[handle] = handle, Residence(handle, make)
        self.ready([handle])
        return handle

    def ready(self, values: Iterable[Any]) -> None:
        """See the module."""
        handles = [handle for handle in dict.fromkeys(_handles(values)) if handle in self._residences]
        if handles and not self._ask(functools.partial(self._load, handles)):
            for handle in handles:
                self._residences[handle].enter()

    def _load(self, handles: list[ModelHandle], management: Any) -> None:
        """Load models through ComfyUI, all in one call, so that none makes room for another."""
        management.load_models_gpu([self._patcher(handle, management) for handle in handles])
        self._unloaded = None
        last = handles[-1]
        # Only of the device that it computes on does every version tell that memory is to be freed.
        self._held = last if self._patchers[last].load_device == management.get_torch_device() else None

    def _made(self, make: Make) -> ModelHandle:
        """Load a model; where its device is full, ComfyUI is asked for room."""
        from fopru_graph.lvlm.loading.device import DoesNotFit

        try:
            return make()
        except DoesNotFit as error:
            needed, device = error.needed, error.device
            if device.type == "cpu" or not self._ask(lambda mm: mm.free_memory(needed, _named(device, mm))):
                raise
        return make()

    def _ask(self, question: Callable[[Any], object]) -> bool:
        """Whether ComfyUI's management did what it was asked; after it failed once it is not asked again."""
        if self._managed:
            try:
                question(importlib.import_module("comfy.model_management"))
            except (ImportError, AttributeError, TypeError) as error:
                self._managed, self._held = False, None
                # As text: the error itself would keep the models of its frames for as long as a log is kept.
                why = first_line(error)
                _log.warning("fopru-graph: ComfyUI cannot manage the memory of models (%s), so they stay loaded", why)
        return self._managed

    def _patcher(self, handle: ModelHandle, management: Any) -> Any:
        """What ComfyUI knows a model by."""
        patcher = self._patchers.get(handle)
        if patcher is None:
            import torch

            residence = self._residences[handle]
            # An empty module in place of the model: whatever ComfyUI does to it moves nothing and keeps nothing alive.
            stand_in = type(type(handle.family.model).__name__, (torch.nn.Module,), {})()
            home = _named(residence.home, management)
            base = importlib.import_module("comfy.model_patcher").ModelPatcher
            patcher = _patcher_type(base)(stand_in, home, torch.device("cpu"), size=residence.size)
            patcher.residence, patcher.unloaded = residence, self._on_unload
            self._patchers[handle] = patcher
        return patcher

    def _on_unload(self, patcher: Any) -> None:
        self._unloaded = patcher
        if self._held is patcher.residence.handle():
            self._held = None
        patcher.residence.leave()


def _handles(values: Iterable[Any]) -> Iterator[ModelHandle]:
    """The handles among values, in lists and dicts too."""
    for value in values:
        if isinstance(value, ModelHandle):
            yield value
        elif isinstance(value, Mapping):
            yield from _handles(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _handles(value)


def _named(device: torch.device, management: Any) -> torch.device:
    """A device as ComfyUI names it, which compares names: ``cuda`` is not ``cuda:0`` to it, nor ``mps:0`` ``mps``."""
    current: torch.device = management.get_torch_device()
    same = device.type == current.type and device.index in (None, current.index or 0)
    return current if same else device


@functools.cache
def _patcher_type(base: Any) -> Any:
    """A class of patchers that move a model as a whole, where ComfyUI's own move layer by layer."""

    class Patcher(base):  # type: ignore[misc]
        residence: Residence
        unloaded: Callable[[Any], None]

        def loaded_size(self) -> int:
            return self.residence.size if self.residence.loaded else 0

        def current_loaded_device(self) -> torch.device:
            device: torch.device = self.load_device if self.residence.loaded else self.offload_device
            return device

        def partially_load(self, device_to: Any, extra_memory: float = 0, *_args: Any, **_options: Any) -> int:
            before = self.loaded_size()
            self.residence.enter()
            return self.loaded_size() - before

        def partially_unload(self, device_to: Any, memory_to_free: float = 0, *_args: Any, **_options: Any) -> int:
            return self.residence.leave()

        def detach(self, unpatch_all: bool = True) -> Any:
            if unpatch_all:  # else ComfyUI only puts it into another place of its list
                self.unloaded(self)
            return self.model

    return Patcher


_models = SharedModels()
load_shared, ready = _models.load_shared, _models.ready
