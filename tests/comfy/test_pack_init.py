"""The pack's own module: it hands on our extension, or says in one sentence why it cannot, and ComfyUI starts."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fopru_graph
from fopru_graph.comfy import pack


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads the pack as ComfyUI does, from a file, under a name of its own."""
    latest = ModuleType("comfy_api.latest")
    latest.ComfyExtension = type("ComfyExtension", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy_api", ModuleType("comfy_api"))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", latest)
    text = (pack.FILES / "__init__.py.template").read_text(encoding="utf-8")
    file = tmp_path / "__init__.py"
    file.write_text(text.replace("@VERSION@", fopru_graph.__version__), encoding="utf-8")

    def load() -> ModuleType:
        spec = importlib.util.spec_from_file_location("custom_nodes_fopru_graph", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_it_hands_on_the_extension_of_the_package(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extension = ModuleType("fopru_graph.comfy.extension")
    extension.comfy_entrypoint = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fopru_graph.comfy.extension", extension)
    module = loaded()
    assert module.comfy_entrypoint is extension.comfy_entrypoint
    assert module.WEB_DIRECTORY == "./web"


@pytest.mark.parametrize("reason", ["absent", "too old", "half there"])
def test_without_the_package_one_sentence_and_no_nodes(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    if reason == "absent":
        monkeypatch.setitem(sys.modules, "fopru_graph", None)
    elif reason == "too old":
        monkeypatch.setattr(fopru_graph, "__version__", "0.0.9")
    else:
        monkeypatch.setitem(sys.modules, "fopru_graph.comfy.extension", None)
    with caplog.at_level(logging.INFO):
        module = loaded()
    (record,) = caplog.records
    sentence = record.getMessage()
    assert "\n" not in sentence and "-m pip install ." in sentence and fopru_graph.__version__ in sentence
    assert ("0.0.9" in sentence) == (reason == "too old")
    nodes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
    assert nodes == []
