"""What MkDocs adds to docs/: the README as the front page, and references made from the declarations themselves."""

from __future__ import annotations

import html
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fopru_graph import cli
from fopru_graph.graph import NodeSpec, Registry

ROOT = Path(__file__).resolve().parent.parent


# Files of the repository that are pages too, by their names there.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "fopru_graph/demo/model/README.md": "model-card.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that follow from code, or lie elsewhere."""
    made = {page: of_repository(name) for name, page in PAGES.items()}
    made |= {"reference/commands.md": commands(), "reference/nodes.md": nodes()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def of_repository(name: str) -> str:
    """A file of the repository; what it links to lies elsewhere here."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for link, page in PAGES.items():
        text = text.replace(f"]({link}", f"]({page}")
    return text


def commands() -> str:
    """All commands with their options, by Typer."""
    command: Any = typer.main.get_command(cli.app)
    context = command.context_class(command, info_name="fopru-graph")
    return typer.cli.get_docs_for_click(obj=command, ctx=context, name="fopru-graph", title="Commands")


def nodes() -> str:
    """All node types by category, with their inputs and outputs."""
    specs = sorted(Registry.default().types().values(), key=lambda spec: (spec.category, spec.type))
    parts = ["# Nodes", "`fopru-graph nodes TYPE` shows the same in a terminal, `--json` gives it to programs."]
    for category, members in groupby(specs, key=lambda spec: spec.category):
        parts.append(f"## {category}")
        parts += [node(spec) for spec in members]
    return "\n\n".join(parts)


def node(spec: NodeSpec) -> str:
    """A node type: its documentation, and a table each of inputs and outputs."""
    inputs = [
        (
            f"`{name}`",
            f"`{socket.type_name}`",
            "required" if socket.required else f"`{socket.default_value()!r}`",
            text(socket.doc),
        )
        for name, socket in spec.inputs.items()
    ]
    outputs = [(f"`{name}`", f"`{socket.type_name}`") for name, socket in spec.outputs.items()]
    tables = [table(("input", "type", "default", ""), inputs), table(("output", "type"), outputs)]
    return "\n\n".join([f"### {spec.type}", spec.doc, *filter(None, tables)])


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; nothing without rows."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def text(doc: str) -> str:
    """A documentation as it is, where Markdown and tables would read more into it, e.g. ``<image>``."""
    return html.escape(doc, quote=False).replace("|", "\\|")
