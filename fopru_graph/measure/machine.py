"""The machine that a run is measured on: its facts, without which a time says nothing, and its peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_COPIED = 2**30  # bytes: a millisecond's work, beside which launching is nothing
_DRIVER_FACTS = {  # our name -> what nvidia-smi is asked for
    "driver": "driver_version",
    "clock_mhz": "clocks.current.sm",
    "memory_clock_mhz": "clocks.current.memory",
    "max_clock_mhz": "clocks.max.sm",
}


def machine_facts(device: str, dtype: str) -> dict[str, Any]:
    """Device, its name, memory, threads, versions; plain JSON values.

    Of a GPU also the driver and the clocks in MHz, None where they cannot be read.
    """
    import torch

    facts: dict[str, Any] = {"device": device, "device_name": _cpu_name(), "dtype": dtype}
    if device.startswith("cuda"):
        gpu = torch.cuda.get_device_properties(device)
        facts |= {"device_name": gpu.name, "device_memory_gib": round(gpu.total_memory / 2**30, 1)}
        facts |= {"cuda": torch.version.cuda, **_driver_facts(str(gpu.uuid))}
    return facts | {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
    }


def _driver_facts(uuid: str) -> dict[str, str | int | None]:
    """What the driver tells of a GPU; it counts GPUs otherwise than PyTorch, which heeds CUDA_VISIBLE_DEVICES."""
    query = f"--query-gpu={','.join(_DRIVER_FACTS.values())}"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id=GPU-{uuid}"]
    told: list[str] = []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split(",")
    driver, *clocks = [value.strip() for value in told] if len(told) == len(_DRIVER_FACTS) else [""] * 4
    values = (driver or None, *(int(clock) if clock.isdecimal() else None for clock in clocks))
    return dict(zip(_DRIVER_FACTS, values, strict=True))


def copy_rate(device: str, clock: Callable[[], float] = time.perf_counter) -> float | None:
    """Bytes a second that a CUDA device reads and writes while it copies, which bounds decoding: median of 11 copies.

    None on other devices, and where there is no room for twice `_COPIED` bytes.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    try:
        source = torch.empty(_COPIED, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
    except torch.OutOfMemoryError:
        return None
    times = []
    for _ in range(12):
        torch.cuda.synchronize(device)
        begin = clock()
        target.copy_(source)
        torch.cuda.synchronize(device)
        times.append(clock() - begin)
    return 2 * _COPIED / statistics.median(times[1:])  # the first one warms up


def reset_peaks(device: str) -> None:
    """Start the peaks again at what is in use now; on systems without such a reset, the process's peak only grows."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        for index in range(torch.cuda.device_count()):  # a model may lie on several
            torch.cuda.reset_peak_memory_stats(index)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back freed memory that the C library holds
    with contextlib.suppress(OSError):
        _RESET.write_text("5")


def peaks(device: str) -> dict[str, int]:
    """Peak bytes by kind: ``rss`` of the process; on CUDA also ``allocated`` and ``reserved``, sums over all devices.

    Where several devices hold something, each has its own beside them, e.g. ``allocated_cuda:1``.
    """
    by_kind = {"rss": _peak_rss()}
    if device.startswith("cuda"):
        import torch

        counters = {"allocated": torch.cuda.max_memory_allocated, "reserved": torch.cuda.max_memory_reserved}
        for kind, peak in counters.items():
            used = {index: held for index in range(torch.cuda.device_count()) if (held := peak(index))}
            by_kind[kind] = sum(used.values())
            by_kind |= {f"{kind}_cuda:{index}": held for index, held in used.items() if len(used) > 1}
    return by_kind


def peak_memory_bytes(by_kind: Mapping[str, int]) -> int:
    """The peak to report of `peaks`: tensors on a CUDA device as PyTorch counts them, else the resident memory."""
    return by_kind.get("allocated", by_kind["rss"])


def _peak_rss() -> int:
    """Peak resident bytes of this process since it began, or on Linux since the last `reset_peaks`."""
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def _cpu_name() -> str:
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
