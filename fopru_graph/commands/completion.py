"""What the shell offers where a command is being typed, after ``fopru-graph --install-completion``.

Typer leaves out what does not begin as the word does. Nothing here loads torch: people wait for the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def pipeline_names() -> list[str]:
    """The pipelines that ship by name, and the YAML files of the current folder."""
    from fopru_graph.graph.shipped import shipped_pipelines

    return [*shipped_pipelines(), *sorted(path.name for path in Path().glob("*.yaml"))]


def node_types() -> list[str]:
    """The node types that `fopru-graph nodes` lists without ``--nodes``."""
    from fopru_graph.graph import Registry

    return sorted(Registry.default().types())


def pipeline_lists(incomplete: str) -> list[str]:
    """As `pipeline_names`; after a comma those that may follow."""
    return _after_commas(incomplete, pipeline_names())


def task_names(incomplete: str) -> list[str]:
    """The benchmarks; after a comma those that may follow."""
    from fopru_graph.evaluation.tasks import TASKS

    return _after_commas(incomplete, TASKS)


def _after_commas(incomplete: str, names: Iterable[str]) -> list[str]:
    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in names]
