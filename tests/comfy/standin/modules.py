"""The modules of ComfyUI that a node pack imports, as far as ours asks them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.comfy.standin import node_api
from tests.comfy.standin.execution import ComfyUI


class InterruptProcessingException(BaseException):
    """Ends a job as interrupted."""


class OutOfMemory(Exception):
    """A device has no memory left."""


@contextmanager
def installed(root: Path) -> Iterator[ComfyUI]:
    """A ComfyUI with its folders below ``root``, whose modules can be imported until the block ends."""
    for name in ("input", "output", "temp", "models/LLM", "models/VLM"):
        (root / name).mkdir(parents=True, exist_ok=True)
    comfy = ComfyUI(InterruptProcessingException)
    with pytest.MonkeyPatch.context() as patch:
        comfy.management.install(patch)
        for name, content in _contents(root, comfy).items():
            patch.setitem(sys.modules, name, sys.modules.get(name) or ModuleType(name))
            vars(sys.modules[name]).update(content)
        yield comfy


def _contents(root: Path, comfy: ComfyUI) -> dict[str, dict[str, Any]]:
    models = {"LLM": [str(root / "models/LLM")]}
    return {
        "comfy_api": {},
        "comfy_api.latest": {"io": node_api, "ComfyExtension": node_api.ComfyExtension},
        "comfy": {},
        "comfy.cli_args": {"args": SimpleNamespace(disable_metadata=False)},
        "comfy.model_management": {
            "InterruptProcessingException": InterruptProcessingException,
            "OOM_EXCEPTION": OutOfMemory,
            "processing_interrupted": lambda: comfy.interrupted,
            "interrupt_current_processing": comfy.interrupt,
        },
        "comfy_execution": {},
        "comfy_execution.progress": {"get_progress_state": lambda: SimpleNamespace(update_progress=comfy.progress)},
        "server": {"PromptServer": SimpleNamespace(instance=SimpleNamespace(send_progress_text=comfy.text))},
        "folder_paths": {
            **{f"get_{name}_directory": (lambda name=name: str(root / name)) for name in ("input", "output", "temp")},
            "models_dir": str(root / "models"),
            "get_folder_paths": lambda kind: models[kind],
        },
    }
