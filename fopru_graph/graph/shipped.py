"""The pipelines that ship, by name."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from types import MappingProxyType

from fopru_graph.graph.errors import PipelineError, Problem, hint_choices
from fopru_graph.paths import local_path

PACKAGE = "fopru_graph.pipelines"


@cache
def shipped_pipelines() -> MappingProxyType[str, Path]:
    """The files of the shipped pipelines by their names, sorted."""
    folder = Path(importlib.import_module(PACKAGE).__path__[0])
    return MappingProxyType({path.stem: path for path in sorted(folder.rglob("*.yaml"), key=lambda path: path.stem)})


def find_pipeline(path: str | Path) -> Path:
    """The file that a path means, or the name of a pipeline that ships; a file of that name wins.

    Raises `PipelineError` if there is neither, and it looks like a name or like the file of one that ships.
    """
    path = Path(local_path(str(path)))
    shipped = shipped_pipelines()
    if str(path) in shipped and not os.path.isfile(path):
        return shipped[str(path)]
    if os.path.exists(path) or (path.suffix and path.stem not in shipped):
        return path
    if path.suffix:
        message, hint = f"there is no file {path}", f"the name of the one that ships is {path.stem}"
    else:
        message = f"there is no file {path}, and no pipeline of that name ships"
        hint = hint_choices(str(path), shipped) or ""
    raise PipelineError([Problem("no-file", message, hint=hint)])
