"""Pipelines on the command line: files, or names of those that ship."""

from __future__ import annotations

import sys
from pathlib import Path


def find_pipeline(path: Path) -> Path:
    """The path of a pipeline's file, see `graph.shipped.find_pipeline`; ends the program with exit code 2."""
    from fopru_graph.graph import PipelineError
    from fopru_graph.graph.shipped import find_pipeline
    from fopru_graph.terminal.console import show_failure

    try:
        return find_pipeline(path)
    except PipelineError as error:
        show_failure(error.problems[0].message, error.problems[0].hint)
        sys.exit(2)


def find_pipelines(paths: list[Path] | None) -> list[Path] | None:
    """`find_pipeline` for each path."""
    return [find_pipeline(path) for path in paths] if paths else paths
