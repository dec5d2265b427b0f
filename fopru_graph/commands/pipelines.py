"""``fopru-graph pipelines``: what ships, what a pipeline's inputs are, and a copy to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape

from fopru_graph.commands.arguments import make_registry, open_graph
from fopru_graph.commands.new import write_new_files
from fopru_graph.commands.shipped import find_pipeline
from fopru_graph.graph import MISSING, Graph
from fopru_graph.graph.check.targets import sockets_of
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.terminal.console import say, simple_table, stdout_console
from fopru_graph.terminal.stdout import stdout


def pipelines(name: str | None, copy: Path | None, nodes: list[Path] | None, as_json: bool) -> None:
    """List the pipelines that ship, show one, or copy one or all into a folder."""
    file = find_pipeline(Path(name)) if name else None
    if copy is not None:
        copy_files([file] if file else list(shipped_pipelines().values()), copy, as_json)
    elif file is not None:
        show_pipeline(open_graph(file, make_registry(nodes)), as_json)
    else:
        list_pipelines(as_json)


def list_pipelines(as_json: bool) -> None:
    """List what ships, with the share of visual tokens that each leaves unless one is given."""
    graphs = {name: Graph.load(file) for name, file in shipped_pipelines().items()}
    if as_json:
        stdout.json({"pipelines": [_described(graph) for graph in graphs.values()]}, indent=2)
        return
    table = simple_table("pipeline", ">ratio", "")
    table.columns[0].no_wrap = True
    for name, graph in graphs.items():
        ratio = graph.inputs["ratio"].default if "ratio" in graph.inputs else None
        table.add_row(f"[bold]{name}[/]", f"{ratio:g}" if ratio else "–", escape(graph.description))
    out = stdout_console()
    out.print(table)
    say(("\nfopru-graph pipelines NAME", "bold"), " shows one, --copy DIR copies it to be changed", to=out)


def show_pipeline(graph: Graph, as_json: bool) -> None:
    """Show a pipeline's inputs with what reads them, and its nodes."""
    described = _described(graph)
    if as_json:
        stdout.json(described, indent=2)
        return
    out = stdout_console()
    out.print(f"[bold]{escape(graph.name)}[/] [dim]{escape(described['file'])}[/]\n{escape(graph.description)}\n")
    table = simple_table("input", "default", "")
    for name, entry in described["inputs"].items():
        default = escape(_shown(entry["default"])) if "default" in entry else "[dim]required[/]"
        kind = " | ".join(map(str, entry.get("choices", [entry["type"]])))
        table.add_row(name, default, f"[dim]{escape(kind)}[/] {escape(entry['doc'])}")
    out.print(table)
    table = simple_table("node", "type", "")
    for name, node in graph.nodes.items():
        spec = graph.registry.find(node.type)
        table.add_row(escape(name), escape(node.type), escape(spec.summary if spec else ""))
    out.print()
    out.print(table)
    say("\n--set NAME=VALUE", (" sets an input,", "dim"), " --set NODE.INPUT=VALUE", (" that of a node", "dim"), to=out)


def copy_files(files: list[Path], folder: Path, as_json: bool) -> None:
    """Copy pipelines into a folder; ends the program with exit code 2 if a file is there already."""
    copies = {folder / file.name: file.read_text(encoding="utf-8") for file in files}
    write_new_files(copies, "--copy")
    if as_json:
        stdout.json({"files": [str(path) for path in copies]})
        return
    for path in copies:
        stdout.line(str(path))


def _described(graph: Graph) -> dict[str, Any]:
    """A pipeline as a JSON object: its inputs with types, defaults and what the nodes that read them say."""
    return {
        "name": graph.name,
        "description": graph.description,
        "file": graph.file,
        "inputs": {name: _described_input(graph, name) for name in graph.inputs},
        "nodes": {name: entry.type for name, entry in graph.nodes.items()},
        "outputs": list(graph.outputs),
    }


def _described_input(graph: Graph, name: str) -> dict[str, Any]:
    declared, sockets = graph.inputs[name], sockets_of(graph, name)
    choices = next((socket.choices for socket in sockets if socket.choices), [])
    return {
        "type": declared.type,
        **({"choices": choices} if choices else {}),
        **({} if declared.default is MISSING else {"default": declared.default}),
        "doc": next((socket.doc for socket in sockets if socket.doc), ""),
    }


def _shown(default: Any) -> str:
    return "null" if default is None else str(default)
