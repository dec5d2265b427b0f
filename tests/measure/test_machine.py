"""The facts and peaks of a machine with GPUs, on one without: PyTorch's answers and the driver's are stood in for."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from fopru_graph.measure import bench, machine
from fopru_graph.measure.machine import copy_rate, machine_facts, peak_memory_bytes, peaks, reset_peaks
from fopru_graph.measure.pipelines import benched_pipelines
from tests.measure import toys
from tests.measure.toys import pipeline

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


def test_a_copy_reads_and_writes_and_the_first_one_is_not_counted(monkeypatch):
    class Clock(toys.Clock):
        """Each reading is some milliseconds after the last: the first copy takes 1000, later ones 2 and once 500."""

        def __init__(self):
            super().__init__()
            self.copies = iter([1000, 2, 2, 500, *[2] * 8])
            self.copying = False

        def __call__(self):
            if self.copying:
                self.pass_ms(next(self.copies))
            self.copying = not self.copying
            return self.now

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda _size, dtype, device: empty(16, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    assert copy_rate("cuda:0", Clock()) == pytest.approx(2 * 2**30 / 2e-3)


def test_no_rate_without_room_or_without_cuda(monkeypatch):
    def full(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    assert copy_rate("cuda") is None and copy_rate("cpu") is None


def test_a_bench_on_a_gpu_waits_in_the_runs_for_stages_alone_and_takes_no_time_from_them(gpus, monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: waits.append(list(toys.runs)))
    monkeypatch.setattr(toys.Handle, "device", "cuda:0")
    monkeypatch.setattr(bench, "copy_rate", lambda device: {"cuda:0": 2e12}[device])
    driver_says(monkeypatch, "580.65.06, 1980, 2619, 1980\n")
    toys.runs.clear()
    pipelines = [*benched_pipelines(pipeline("plain"), [1.0]), *benched_pipelines(pipeline("pruned", 1), [0.5])]
    result = bench.Bench(pipelines, new_tokens=5, rounds=2, clock=toys.clock).run()
    assert {variant.ttft.n for variant in result.variants} == {2}  # of whole answers, which do not wait
    assert {variant.stages["encode"].n for variant in result.variants} == {2}  # of first tokens, which do
    rows, nodes = 3, {"plain": 2, "pruned": 4}
    assert len(waits) == 2 * 2 * (2 * nodes["plain"] + nodes["pruned"])  # rounds × start and end × nodes
    assert len(waits[0]) == 3 * rows + 1  # nothing waits before the rounds, nor in the first whole answer
    assert {variant.peak_memory_bytes for variant in result.variants} == {1000}
    assert result.variants[0].memory["allocated_cuda:1"] == 300
    assert [result.machine[key] for key in ("driver", "cuda", "copied_gb_per_s")] == ["580.65.06", "13.0", 2000]
    json.dumps(result.to_json())
