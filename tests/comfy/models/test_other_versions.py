"""Where ComfyUI's management is missing or has changed, runs go on with plain models."""

from __future__ import annotations

import logging
import sys
import types

import pytest
import torch

from fopru_graph.comfy import models
from tests.comfy.models.rig import CPU, GPU, Loader, answer, where, without_collector
from tests.comfy.standin.model_management import Management


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


def test_nothing_is_held_once_the_management_fails(shared, manager, monkeypatch):
    load = Loader()
    handle = shared.load_shared("a", load)
    _absent(monkeypatch)
    shared.ready([handle])
    with without_collector():
        del handle
        assert load.alive == 0


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
