"""Models in ComfyUI: loaded once, given back when memory is asked for, moved whole or not at all."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import types
import weakref

import pytest
import torch

from fopru_graph.comfy import models
from fopru_graph.comfy.models import SharedModels
from fopru_graph.errors import UserError
from fopru_graph.graph.values import describe
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.loading import device as devices
from fopru_graph.lvlm.loading.device import DoesNotFit
from fopru_graph.lvlm.loading.moving import bytes_on
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.comfy.standin.model_management import Management, ModelPatcher
from tests.lvlm.accelerator import move as move_simulated
from tests.lvlm.accelerator import simulated
from tests.lvlm.decoding.fake_cuda import FakeCuda

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Loader:
    """Makes models as a LoadModel node does, on a device, and keeps none of them."""

    def __init__(self, device=CPU, seed=90, quantised=False):
        self.device, self.seed, self.quantised, self.made = device, seed, quantised, []

    def __call__(self):
        family = tiny.llava(seed=self.seed)
        if self.quantised:
            family.model.quantization_method = "bitsandbytes"
        if self.device != CPU:
            move_simulated(family.model, self.device)
        handle = ModelHandle(f"tiny {self.seed}", family)
        self.made.append([weakref.ref(handle), weakref.ref(family), weakref.ref(family.model.lm_head.weight)])
        return handle

    @property
    def alive(self):
        """How many of the models' handles, families and weights are still in memory."""
        return sum(ref() is not None for refs in self.made for ref in refs)


class Diffusion(torch.nn.Module):
    """A model of somebody else."""


@pytest.fixture
def shared():
    return SharedModels()


@pytest.fixture
def manager(monkeypatch):
    return Management().install(monkeypatch)


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(captured, "WORTH", 2)
    monkeypatch.setattr(captured, "free_memory", lambda _device: 2**30)
    return FakeCuda().install(monkeypatch)


@pytest.fixture
def gpu(monkeypatch, cuda):
    """A simulated GPU with room for 1.5 of the tiny models, and ComfyUI's management of it."""
    size = bytes_on(tiny.llava(seed=90), CPU)
    manager = Management(GPU, int(1.5 * size)).install(monkeypatch)
    with simulated():
        yield manager


@contextlib.contextmanager
def without_collector():
    """Nothing is freed by the collector of circles: what must be freed, has no circle."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def answer(handle, loop="static"):
    family = handle.family
    tokens = family.project(family.encode([tiny.image()]), None)
    return generate(family, tokens, ["what?"], max_new_tokens=4, loop=loop)


def diffusion(share, gpu):
    """A patcher of a diffusion model that takes such a share of the device."""
    return ModelPatcher(Diffusion(), GPU, CPU, size=int(share * gpu.capacity))


def where(handle):
    return {tensor.device for tensor in [*handle.family.model.parameters(), *handle.family.model.buffers()]}


# -- loaded once ------------------------------------------------------------------------------------------------------


def test_workflows_in_turn_load_their_model_once_though_the_cache_drops_it(shared, manager):
    load = Loader()
    for _ in range(4):
        outputs = [shared.load_shared("a", load)]  # a workflow; the next one's first node drops it from the cache
        shared.ready(outputs)
        outputs.clear()
    assert len(load.made) == 1 and load.alive == 3 and manager.leaked == 0


def test_equal_inputs_give_the_handle_that_somebody_still_has(shared, manager):
    first, other = Loader(), Loader(seed=91)
    handle = shared.load_shared("a", first)
    shared.load_shared("b", other)  # is held now
    assert shared.load_shared("a", first) is handle and len(first.made) == 1


def test_the_model_that_is_held_goes_before_another_is_loaded(shared, manager):
    first, seen = Loader(), []

    def second():
        seen.append(first.alive)
        return Loader(seed=91)()

    with without_collector():
        shared.load_shared("a", first)
        shared.load_shared("b", second)
    assert seen == [0] and len(manager.entries) == 1 and manager.leaked == 0


def test_a_model_where_comfyui_cannot_say_that_memory_is_needed_is_not_held(shared, gpu):
    load = Loader(CPU)
    with without_collector():
        shared.load_shared("a", load)
        assert load.alive == 0


# -- given back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_free_memory_frees_handle_and_weights_at_once(shared, manager, loop):
    load, cache = Loader(), {}
    cache["model"] = shared.load_shared("a", load)
    shared.ready(cache.values())
    cache["answer"] = answer(cache["model"], loop)
    with without_collector():
        manager.unload_all_models()
        assert load.alive == 3  # ComfyUI's cache has it
        cache.clear()
        assert load.alive == 0
    assert manager.names == ["LlavaForConditionalGeneration"] and manager.leaked == 0


def test_unloading_alone_frees_what_no_cache_holds(shared, manager):
    load = Loader()
    shared.load_shared("a", load)
    with without_collector():
        manager.unload_all_models()
        assert load.alive == 0
    assert shared.load_shared("a", load) and len(load.made) == 2


def test_on_a_gpu_too_free_memory_leaves_nothing_though_steps_were_captured(shared, gpu, cuda):
    load, cache = Loader(GPU), {}
    cache["model"] = shared.load_shared("a", load)
    assert answer(cache["model"]).captured
    with without_collector():
        gpu.unload_all_models()
        cache.clear()
        cuda.graphs.clear()  # the simulated ones hold the tensors whose addresses real ones know
        assert load.alive == 0


# -- on a GPU, beside others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 1.0], ids=["a part", "all"])
def test_a_model_leaves_its_device_whole_for_a_diffusion_model_and_comes_back(shared, gpu, share):
    load = Loader(GPU)
    handle = shared.load_shared("a", load)
    expected = answer(handle)
    other = diffusion(share, gpu)
    gpu.load_models_gpu([other])
    assert where(handle) == {CPU} and other.loaded_size() == other.model_size()
    shared.ready([1, {"pruners": [handle]}])
    assert where(handle) == {GPU} and other.loaded_size() < other.model_size()
    found = answer(handle)
    assert found.token_ids == expected.token_ids and found.device == str(GPU) and len(load.made) == 1


def test_no_step_that_was_captured_before_a_move_is_replayed_after_it(shared, gpu):
    handle = shared.load_shared("a", Loader(GPU))
    answer(handle)
    (before,) = handle.family.steps.values()
    assert before.captured is not None
    replays = before.captured.replays
    gpu.unload_all_models()
    assert not handle.family.steps and handle.family.recorder is None and handle.family.last_prompt is None
    shared.ready([handle])
    assert answer(handle).captured
    (after,) = handle.family.steps.values()
    assert after.captured is not before.captured and before.captured.replays == replays


def test_a_model_that_stays_in_comfyuis_list_is_still_held(shared, gpu):
    load = Loader(GPU)
    shared.load_shared("a", load)
    gpu.load_models_gpu([diffusion(0.5, gpu)])  # needs less than the model takes
    handle = shared.load_shared("a", load)
    assert len(load.made) == 1 and where(handle) == {GPU}


def test_a_model_that_came_back_leaves_comfyuis_list_when_nobody_has_it(shared, gpu):
    load = Loader(GPU)
    handle = shared.load_shared("a", load)
    gpu.unload_all_models()
    shared.ready([handle])
    assert len(gpu.entries) == 1 and gpu.get_free_memory(GPU) < gpu.capacity
    with without_collector():
        del handle
        shared.load_shared("b", Loader(CPU, seed=91))
        assert load.alive == 0
    assert gpu.get_free_memory(GPU) == gpu.capacity and gpu.leaked == 0


def test_two_models_of_a_node_are_made_ready_together(shared, gpu):
    gpu.capacity *= 2
    loaders = [Loader(GPU), Loader(GPU, seed=91)]
    handles = [shared.load_shared(loader.seed, loader) for loader in loaders]
    gpu.unload_all_models()
    assert [where(handle) for handle in handles] == [{CPU}, {CPU}]
    shared.ready(handles)
    assert [where(handle) for handle in handles] == [{GPU}, {GPU}] and len(gpu.entries) == 2


def test_a_quantised_model_is_freed_as_a_whole_and_read_anew(shared, gpu, cuda):
    load = Loader(GPU, quantised=True)
    handle = shared.load_shared("a", load)
    expected = answer(handle).token_ids
    cuda.graphs.clear()
    with without_collector():
        gpu.load_models_gpu([diffusion(0.5, gpu)])
        assert handle.family.model is None and load.made[0][2]() is None  # freed, not moved
    assert "tiny 90" in describe(handle)  # errors may name it meanwhile
    shared.ready([handle])
    assert where(handle) == {GPU} and answer(handle).token_ids == expected
    assert len(load.made) == 2 and shared.load_shared("a", load) is handle


def test_without_room_on_the_cpu_weights_are_freed_too(shared, gpu, monkeypatch):
    load = Loader(GPU)
    handle = shared.load_shared("a", load)
    monkeypatch.setattr(devices, "free_memory", lambda _device: 1)
    gpu.unload_all_models()
    assert handle.family.model is None and load.made[0][2]() is None
    shared.ready([handle])
    assert where(handle) == {GPU} and len(load.made) == 2


def test_a_model_that_comes_from_elsewhere_is_left_alone(shared, gpu):
    handle = Loader(GPU)()
    shared.ready([handle])
    gpu.unload_all_models()
    assert not gpu.entries and where(handle) == {GPU}


# -- a device that is full --------------------------------------------------------------------------------------------


def test_where_a_model_does_not_fit_comfyui_makes_room_and_it_is_loaded(shared, gpu):
    other = diffusion(1.0, gpu)
    gpu.load_models_gpu([other])
    load, tries = Loader(GPU), []

    def make():
        tries.append(other.loaded_size())
        if gpu.get_free_memory(GPU) < gpu.capacity // 2:
            raise DoesNotFit("it does not fit", "use a smaller one", gpu.capacity // 2, torch.device("cuda"))
        return load()

    assert where(shared.load_shared("a", make)) == {GPU}
    assert tries[0] == gpu.capacity and tries[1] <= gpu.capacity // 2 and len(tries) == 2


@pytest.mark.parametrize(("place", "tries"), [("cuda:0", 2), ("cpu", 1)])
def test_what_never_fits_ends_in_its_own_sentence(shared, gpu, place, tries):
    seen = []

    def make():
        seen.append(place)
        raise DoesNotFit("it does not fit", "use a smaller one", 1, torch.device(place))

    with pytest.raises(UserError, match="it does not fit"):
        shared.load_shared("a", make)
    assert len(seen) == tries


# -- another ComfyUI, or none -----------------------------------------------------------------------------------------


def _absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy.model_management", None)


def _without_patchers(monkeypatch):
    Management().install(monkeypatch)
    monkeypatch.setitem(sys.modules, "comfy.model_patcher", types.ModuleType("comfy.model_patcher"))


def _other_arguments(monkeypatch):
    Management().install(monkeypatch)
    monkeypatch.setattr(sys.modules["comfy.model_management"], "load_models_gpu", lambda *, loader: None)


@pytest.mark.parametrize("change", [_absent, _without_patchers, _other_arguments])
def test_without_the_management_runs_go_on_with_one_warning(shared, monkeypatch, caplog, change):
    change(monkeypatch)
    load = Loader()
    with caplog.at_level(logging.WARNING, logger=models.__name__):
        handle = shared.load_shared("a", load)
        shared.ready([handle])
        assert shared.load_shared("a", load) is handle and answer(handle).token_ids
    (record,) = caplog.records
    assert "ComfyUI cannot manage the memory of models" in record.getMessage()
    with without_collector():
        del handle
        assert load.alive == 0  # held only while ComfyUI can ask for the memory


def test_a_model_that_was_moved_away_comes_back_without_the_management(shared, gpu, monkeypatch):
    handle = shared.load_shared("a", Loader(GPU))
    gpu.unload_all_models()
    assert where(handle) == {CPU}
    _absent(monkeypatch)
    shared.ready([handle])
    assert where(handle) == {GPU}


def test_want_of_memory_is_no_change_of_the_management(shared, gpu, monkeypatch):
    handle = shared.load_shared("a", Loader(GPU))
    gpu.unload_all_models()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("fopru_graph.lvlm.loading.moving.move", full)
        with pytest.raises(torch.OutOfMemoryError):
            shared.ready([handle])
    assert where(handle) == {CPU}
    shared.ready([handle])
    assert where(handle) == {GPU} and len(gpu.entries) == 1
