"""What the shell offers where a command is being typed, after ``fopru-graph --install-completion``.

Typer leaves out what does not begin as the word does. Nothing here loads torch: people wait for the answer.
"""

from __future__ import annotations

from pathlib import Path

from fopru_graph.commands.shipped import shipped_pipelines


def pipeline_names() -> list[str]:
    """The pipelines that ship by name, and the YAML files of the current folder."""
    return [*shipped_pipelines(), *sorted(path.name for path in Path().glob("*.yaml"))]


def node_types() -> list[str]:
    """The node types that `fopru-graph nodes` lists without ``--nodes``."""
    from fopru_graph.graph import Registry

    return sorted(Registry.default().types())


def task_names(incomplete: str) -> list[str]:
    """The benchmarks; after a comma those that may follow."""
    from fopru_graph.evaluation.tasks import TASKS

    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + task for task in TASKS]
