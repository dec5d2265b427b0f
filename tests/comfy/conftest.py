"""A stand-in for ComfyUI with our nodes, for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comfy.standin import ComfyUI, installed


@pytest.fixture(scope="module")
def comfy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stand-in has its input, output, temp and models."""
    return tmp_path_factory.mktemp("ComfyUI")


@pytest.fixture(scope="module")
def comfy(comfy_root: Path) -> Iterator[ComfyUI]:
    from fopru_graph.comfy import extension

    with installed(comfy_root) as program:
        program.load(extension)
        yield program
