"""Peak memory: what PyTorch allocated and reserved on a CUDA device, and what the process held in main memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import psutil

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory_bytes(device: str) -> int:
    """Most bytes in use so far: tensors on a CUDA device as PyTorch counts them, else the process's resident memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_rss()


def peak_rss() -> int:
    """Most resident bytes of this process since it began, or on Linux since the last `reset_peaks`."""
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def reset_peaks(device: str) -> None:
    """Begin anew, so that the next peak is that of what runs now; on systems without such a reset, peaks only grow."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that the C library holds back is nobody's need
    with contextlib.suppress(OSError):
        _RESET.write_text("5")


def peaks(device: str) -> dict[str, int]:
    """Peak bytes by kind: ``allocated`` and ``reserved`` on a CUDA device, ``rss`` of the process."""
    found = {"rss": peak_rss()}
    if device.startswith("cuda"):
        import torch

        found["allocated"] = torch.cuda.max_memory_allocated(device)
        found["reserved"] = torch.cuda.max_memory_reserved(device)
    return found
