"""Peak memory of this process, on the device that the model ran on."""

from __future__ import annotations

import sys


def peak_memory_bytes(device: str) -> int:
    """Most bytes ever in use: tensors on a CUDA device as PyTorch counts them, else the process's resident memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
