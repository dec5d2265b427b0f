"""Models in ComfyUI are loaded once, and given back when memory is asked for."""

from __future__ import annotations

import pytest

from tests.comfy.models.rig import CPU, GPU, Loader, answer, without_collector

# -- loaded once -------------------------------------------------------------------------------------------------------


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


# -- given back --------------------------------------------------------------------------------------------------------


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
