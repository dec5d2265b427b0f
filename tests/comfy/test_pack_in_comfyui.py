"""The written folder, loaded from where it lies by the stand-in for ComfyUI, and an example of it that runs there."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fopru_graph.comfy import extension
from fopru_graph.comfy.pack import write_pack
from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.graph import Graph, Registry
from tests.comfy.standin import ComfyUI, installed

REGISTRY = Registry.default()
PLANS = plans(REGISTRY)


@pytest.fixture(scope="module")
def folder(comfy_root: Path) -> Path:
    """The pack in ComfyUI's folder."""
    write_pack(comfy_root / "custom_nodes", REGISTRY)
    return comfy_root / "custom_nodes" / "fopru_graph"


@pytest.fixture(scope="module")
def pack(folder: Path) -> ModuleType:
    """The pack's module, under a name made of its path, as ComfyUI calls it; it stays in no table of modules."""
    spec = importlib.util.spec_from_file_location(str(folder).replace(".", "_x_"), folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comfy(comfy_root: Path, pack: ModuleType) -> Iterator[ComfyUI]:
    """A stand-in that knows our nodes by the written folder alone."""
    with installed(comfy_root) as program:
        program.load(pack)
        yield program


def example(folder: Path, name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((folder / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


def test_the_folder_brings_all_nodes(pack: ModuleType, comfy: ComfyUI) -> None:
    assert pack.comfy_entrypoint is extension.comfy_entrypoint
    assert set(comfy.nodes) == set(PLANS)


def test_the_script_has_one_address(folder: Path, pack: ModuleType) -> None:
    """ComfyUI serves what the module names and what ``tool.comfy.web`` names, each under an address of its own.

    With both the browser loads the script twice, and refuses the second as registered already.
    """
    config = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    assert (folder / pack.WEB_DIRECTORY / "fopru.js").is_file()
    assert "web" not in config["tool"]["comfy"]


def test_an_example_of_the_folder_runs(folder: Path, comfy: ComfyUI) -> None:
    prompt, _ = prompt_of_workflow(example(folder, "fopru_fastv"), PLANS)
    job = comfy.run(prompt)
    assert (job.status, job.errors) == ("success", {})
    ours = Graph.load("fopru_fastv", REGISTRY).run()
    assert job.outputs["generate"] == {"text": [ours["text"]]}
