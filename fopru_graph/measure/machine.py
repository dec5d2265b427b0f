"""What a bench ran on: without it a time says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


def machine_facts(device: str, dtype: str) -> dict[str, Any]:
    """Device, its name, memory, threads, versions; plain JSON values."""
    import psutil
    import torch

    facts: dict[str, Any] = {"device": device, "device_name": _cpu_name(), "dtype": dtype}
    if device.startswith("cuda"):
        found = torch.cuda.get_device_properties(device)
        facts |= {"device_name": found.name, "device_memory_gib": round(found.total_memory / 2**30, 1)}
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


def _cpu_name() -> str:
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
