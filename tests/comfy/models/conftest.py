"""ComfyUI's management of memory, on the CPU and on a simulated GPU."""

from __future__ import annotations

import pytest

from fopru_graph.comfy.models import SharedModels
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.loading.moving import bytes_on
from tests import tiny
from tests.comfy.models.rig import CPU, GPU
from tests.comfy.standin.model_management import Management
from tests.lvlm.accelerator import simulated
from tests.lvlm.decoding.fake_cuda import FakeCuda


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
