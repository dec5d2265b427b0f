"""The machine that a run is measured on: its facts, without which a time says nothing, and its peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def machine_facts(device: str, dtype: str) -> dict[str, Any]:
    """Device, its name, memory, threads, versions; plain JSON values."""
    import torch

    facts: dict[str, Any] = {"device": device, "device_name": _cpu_name(), "dtype": dtype}
    if device.startswith("cuda"):
        gpu = torch.cuda.get_device_properties(device)
        facts |= {"device_name": gpu.name, "device_memory_gib": round(gpu.total_memory / 2**30, 1)}
        facts["cuda"] = torch.version.cuda
    return facts | {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
    }


def reset_peaks(device: str) -> None:
    """Start the peaks again at what is in use now; on systems without such a reset, the process's peak only grows."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back freed memory that the C library holds
    with contextlib.suppress(OSError):
        _RESET.write_text("5")


def peaks(device: str) -> dict[str, int]:
    """Peak bytes by kind: ``allocated`` and ``reserved`` on a CUDA device, ``rss`` of the process."""
    by_kind = {"rss": _peak_rss()}
    if device.startswith("cuda"):
        import torch

        by_kind["allocated"] = torch.cuda.max_memory_allocated(device)
        by_kind["reserved"] = torch.cuda.max_memory_reserved(device)
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
