"""Models beside a diffusion model on a simulated GPU: they move whole or not at all."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.graph.values import describe
from fopru_graph.lvlm.loading import device as devices
from fopru_graph.lvlm.loading.device import DoesNotFit
from tests.comfy.models.rig import CPU, GPU, Loader, answer, diffusion, where, without_collector


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


def test_making_a_loaded_model_ready_moves_nothing(shared, gpu):
    handle, other = shared.load_shared("a", Loader(GPU)), diffusion(0.2, gpu)
    gpu.load_models_gpu([other])
    answer(handle)
    weights, steps = list(handle.family.model.parameters()), dict(handle.family.steps)
    shared.ready([handle])
    same = [before is after for before, after in zip(weights, handle.family.model.parameters(), strict=True)]
    assert all(same) and handle.family.steps == steps and steps
    assert other.loaded_size() == other.model_size()  # there was room for both, and nothing more was asked for


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
