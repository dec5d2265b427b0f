"""The facts and peaks of a machine with GPUs, on one without: PyTorch's answers and the driver's are stood in for."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
import torch

from fopru_graph.measure import machine
from fopru_graph.measure.machine import machine_facts, peak_memory_bytes, peaks, reset_peaks

UUID = "8a6a0d0e-1111-2222-3333-444455556666"


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs; what of each was reset stands in ``reset``."""
    held = {"allocated": {0: 700, 1: 300}, "reserved": {0: 800, 1: 400}, "reset": []}
    properties = SimpleNamespace(name="Test GPU", total_memory=80 * 2**30, uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", held["reset"].append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda index: held["allocated"][index])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda index: held["reserved"][index])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return held


def driver_says(monkeypatch, text):
    asked = []

    def run(command, **options):
        asked.append((command, options))
        if isinstance(text, Exception):
            raise text
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(machine.subprocess, "run", run)
    return asked


def test_a_gpu_is_recorded_with_driver_cuda_and_clocks(gpus, monkeypatch):
    asked = driver_says(monkeypatch, "580.65.06, 1980, 2619, 1980\n")
    facts = machine_facts("cuda:1", "bfloat16")
    assert facts["device_name"] == "Test GPU" and facts["cuda"] == "13.0"
    assert [facts[key] for key in ("driver", "clock_mhz", "memory_clock_mhz", "max_clock_mhz")] == [
        "580.65.06",
        1980,
        2619,
        1980,
    ]
    ((command, options),) = asked
    assert f"--id=GPU-{UUID}" in command, "by its name: its number may be another one to the driver"
    assert options["timeout"] <= 10


@pytest.mark.parametrize(
    "answer",
    [
        FileNotFoundError("nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 10),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        "No devices were found\n",
    ],
)
def test_what_the_driver_does_not_tell_is_null(gpus, monkeypatch, answer):
    driver_says(monkeypatch, answer)
    facts = machine_facts("cuda", "bfloat16")
    assert [facts[key] for key in ("driver", "clock_mhz", "memory_clock_mhz", "max_clock_mhz")] == [None] * 4
    assert facts["device_name"] == "Test GPU"


def test_clocks_alone_may_be_unreadable(gpus, monkeypatch):
    driver_says(monkeypatch, "580.65.06, [N/A], [Not Supported], 1980\n")
    facts = machine_facts("cuda", "bfloat16")
    assert [facts[key] for key in ("driver", "clock_mhz", "memory_clock_mhz", "max_clock_mhz")] == [
        "580.65.06",
        None,
        None,
        1980,
    ]


def test_a_cpu_asks_no_driver(monkeypatch):
    asked = driver_says(monkeypatch, "580.65.06, 1980, 2619, 1980\n")
    assert "driver" not in machine_facts("cpu", "float32") and asked == []


def test_the_peaks_of_all_devices_are_reset_and_counted(gpus):
    reset_peaks("cuda:0")
    assert gpus["reset"] == [0, 1]
    by_kind = peaks("cuda:0")
    assert by_kind.pop("rss") > 10**6
    assert by_kind == {
        **{"allocated": 1000, "allocated_cuda:0": 700, "allocated_cuda:1": 300},
        **{"reserved": 1200, "reserved_cuda:0": 800, "reserved_cuda:1": 400},
    }
    assert peak_memory_bytes(by_kind | {"rss": 1}) == 1000


def test_a_device_that_holds_nothing_is_not_named(gpus):
    gpus["allocated"][0] = gpus["reserved"][0] = 0
    by_kind = peaks("cuda:1")
    assert {key: by_kind[key] for key in by_kind if key != "rss"} == {"allocated": 300, "reserved": 400}
