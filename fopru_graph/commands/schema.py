"""``fopru-graph schema``: the JSON Schema of pipeline files."""

from __future__ import annotations

import json
from pathlib import Path

from fopru_graph.commands.arguments import make_registry, write_text
from fopru_graph.graph.yaml.schema import pipeline_schema
from fopru_graph.terminal.stdout import stdout


def write_schema(output: Path | None, nodes: list[Path] | None) -> None:
    """Write the schema of all node types, those of ``nodes`` too, to a file or to stdout."""
    described = pipeline_schema(make_registry(nodes))
    if output is None:
        stdout.json(described, indent=2)
    else:
        write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", output)
