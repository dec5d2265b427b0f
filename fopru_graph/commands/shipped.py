"""The pipelines that ship, by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def shipped_pipelines() -> dict[str, Path]:
    """The files of the shipped pipelines by their names, sorted."""
    from fopru_graph import pipelines

    return {path.stem: path for path in sorted(Path(pipelines.__path__[0]).rglob("*.yaml"))}


def find_pipeline(path: Path) -> Path:
    """The path of a file that exists, or of the pipeline that ships under this name.

    Ends the program with exit code 2 if there is neither, and it looks like a name or like the file of one that ships.
    """
    shipped = shipped_pipelines()
    if os.path.exists(path) or (path.suffix and path.stem not in shipped):
        return path
    if str(path) in shipped:
        return shipped[str(path)]
    from fopru_graph.graph.errors import hint_choices
    from fopru_graph.terminal.console import show_failure

    if path.suffix:
        show_failure(f"there is no file {path}", f"the name of the one that ships is {path.stem}")
    else:
        show_failure(f"there is no file {path}, and no pipeline of that name ships", hint_choices(str(path), shipped))
    sys.exit(2)


def find_pipelines(paths: list[Path] | None) -> list[Path] | None:
    """`find_pipeline` for each path."""
    return [find_pipeline(path) for path in paths] if paths else paths
