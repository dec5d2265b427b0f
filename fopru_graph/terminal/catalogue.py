"""The lists of node types, model families and tasks, as tables on stdout; a node type also as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.padding import Padding

from fopru_graph.graph import NodeSpec, Socket
from fopru_graph.terminal.console import simple_table, stdout_console


def describe_node(spec: NodeSpec) -> dict[str, Any]:
    """A node type as a JSON object: its inputs and outputs with their types, defaults and documentation."""
    return {
        "type": spec.type,
        "category": spec.category,
        "doc": spec.doc,
        "version": spec.version,
        "output": spec.output,
        "cache": spec.cache,
        "inputs": {name: _describe_socket(socket) for name, socket in spec.inputs.items()},
        "outputs": {name: socket.type_name for name, socket in spec.outputs.items()},
    }


def _describe_socket(socket: Socket) -> dict[str, Any]:
    marks = {"required": socket.required, "lazy": socket.lazy, "advanced": socket.advanced}
    described = {"type": socket.type_name, **marks, "doc": socket.doc}
    return described if socket.required else described | {"default": socket.default_value()}


def show_catalogue(specs: Iterable[NodeSpec]) -> None:
    """Print all node types, sorted by category."""
    table = simple_table("category", "type", "gives", "")
    for column in table.columns[:2]:
        column.no_wrap = True
    for spec in sorted(specs, key=lambda spec: (spec.category, spec.type)):
        gives = ", ".join(socket.type_name for socket in spec.outputs.values())
        table.add_row(spec.category, f"[bold]{spec.type}[/]", escape(gives), escape(spec.summary))
    stdout_console().print(table)


def show_node(spec: NodeSpec) -> None:
    """Print a node type with its documentation, its inputs and its outputs."""
    out = stdout_console()
    out.print(f"[bold]{spec.type}[/] [dim]{spec.category}[/]\n{escape(spec.doc)}\n")
    table = simple_table("input", "type", "default", "")
    for name, socket in spec.inputs.items():
        default = "[dim]required[/]" if socket.required else escape(repr(socket.default_value()))
        table.add_row(
            name, escape(socket.type_name), default, escape(socket.doc) + (" [dim](lazy)[/]" if socket.lazy else "")
        )
    out.print(table)
    table = simple_table("output", "type")
    for name, socket in spec.outputs.items():
        table.add_row(name, escape(socket.type_name))
    out.print()
    out.print(table)


def show_models(models: Iterable[Mapping[str, Any]]) -> None:
    """Print the model families with what each supports: video, in-LLM pruning, visual tokens, known checkpoints."""
    out = stdout_console()
    for model in models:
        video = "[green]video[/]" if model["video"] else "no video"
        out.print(f"[bold]{model['family']}[/]  {video}, in-LLM pruning from layer {escape(model['first_cut'])}")
        lines = {
            "visual tokens": model["tokens"],
            "e.g.": ", ".join(model["checkpoints"]),
            "proven on": model["proven_on"],
            "note": model["note"],
        }
        for name, text in lines.items():
            if text:
                out.print(Padding(f"[dim]{name}[/] {escape(text)}", (0, 0, 0, 4)))
    out.print("\nAll of them: pruning before and in the language model, batches, several images in one prompt.")


def show_scorers(scorers: Iterable[Mapping[str, Any]]) -> None:
    """Print the scorers with the columns they need, their options and what they do."""
    table = simple_table("scorer", "columns", "options", "what is right")
    for scorer in scorers:
        options = ", ".join(f"{name}: {default}" for name, default in scorer["options"].items())
        table.add_row(scorer["name"], ", ".join(scorer["columns"]), escape(options), escape(scorer["doc"]))
    stdout_console().print()
    stdout_console().print(table)


def show_tasks(tasks: Iterable[Mapping[str, Any]]) -> None:
    """Print the tasks with their benchmark, their scorer and the limit of generated tokens."""
    table = simple_table("task", "benchmark", "scorer", ">new tokens")
    for task in tasks:
        table.add_row(task["name"], escape(task["title"]), escape(task["scorer"]), str(task["max_new_tokens"]))
    stdout_console().print(table)
