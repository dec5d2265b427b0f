"""``fopru-graph validate``: all problems of a pipeline at once; nothing runs."""

from __future__ import annotations

from pathlib import Path

from fopru_graph.commands.arguments import check_graph, make_registry, show
from fopru_graph.graph.errors import errors_of
from fopru_graph.terminal.stdout import stdout


def validate(file: Path, as_json: bool, nodes: list[Path] | None, changes: list[str]) -> int:
    """Show the problems of a pipeline, ``changes`` as for `check_graph`; returns the exit code."""
    _, problems = check_graph(file, make_registry(nodes), changes)
    if as_json:
        stdout.json({"problems": [problem.to_json() for problem in problems]}, indent=2)
    else:
        show(problems, file)
        if not problems:
            stdout.line(f"{file}: valid")
    return 2 if errors_of(problems) else 0
