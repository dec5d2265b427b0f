"""A graph as YAML text, byte-stable: the same graph always gives the same bytes, and reading them gives the graph."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fopru_graph.graph.graph import Graph
from fopru_graph.graph.model import GraphNode
from fopru_graph.graph.sockets import MISSING
from fopru_graph.graph.values import Ref, Value
from fopru_graph.graph.yaml.read import FORMAT
from fopru_graph.graph.yaml.scalars import resolve

WIDTH = 120
_WIDEST_COLUMN = 28  # a longer name is not aligned with, so that it cannot push the others over the edge
_LONGEST_SIMPLE_KEY = 120  # YAML allows 1024 bytes; longer keys get the explicit form ``? key : value``
# No question mark between braces: PyYAML's own parser, unlike libyaml, takes it for the mark of a key there.
_PLAIN_FLOW = re.compile(r"[\w$./][\w $./;()!'=+*%<>|~^&@:-]*")
_PLAIN_BLOCK = re.compile(r"[\w$./][\w $./;()?!'=+*%<>|~^&@:,\[\]{}-]*")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def dump(graph: Graph) -> str:
    """The graph as the text of a pipeline file."""
    lines = [f"format: {FORMAT}"]
    for key, text in (("name", graph.name), ("description", graph.description)):
        if text:
            lines.append(f"{key}: {_scalar(text, _PLAIN_BLOCK)}")
    inputs: dict[str, Any] = {}
    for name, declared in graph.inputs.items():
        inputs[name] = {"type": declared.type}
        if declared.default is not MISSING:
            inputs[name]["default"] = _escaped(declared.default)
    lines += _section("inputs", inputs)
    lines += _section("nodes", {name: _node(entry) for name, entry in graph.nodes.items()})
    if graph.outputs:
        lines += _entry("outputs", {name: output.ref for name, output in graph.outputs.items()})
    if graph.ui is not None:
        lines += _entry("ui", graph.ui)
    return "\n".join(lines) + "\n"


def _node(entry: GraphNode) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": entry.type}
    if entry.inputs:
        fields["inputs"] = _escaped(entry.inputs)
    for key, text in (("cache", entry.cache), ("comment", entry.comment)):
        if text is not None:
            fields[key] = text
    return fields


def _escaped(value: Value) -> Value:
    """The value with another dollar before every text that would otherwise be read as a reference."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return "$" + value if isinstance(value, str) and value.startswith("$") else value


def _section(name: str, entries: Mapping[str, Any]) -> list[str]:
    """A block with one entry a line and the entries' values in one column."""
    if not entries:
        return []
    widths = [len(_key(key)) for key in entries]
    column = 2 + max((width for width in widths if width <= _WIDEST_COLUMN), default=0) + 2
    return [f"{name}:", *(line for key, value in entries.items() for line in _entry(key, value, "  ", column))]


def _entry(key: str, value: Any, indent: str = "", column: int = 0, split: bool = False) -> list[str]:
    """A key and its value: on one line when it fits, otherwise a mapping or list with one item a line.

    ``split`` asks for the long form: a node that does not fit on one line has one input a line.
    """
    head = f"{indent}{_key(key)}:"
    flow = _flow(value)
    line = f"{head} ".ljust(column) + flow
    splittable = isinstance(value, dict) and all(len(_key(inner)) <= _LONGEST_SIMPLE_KEY for inner in value)
    if not value or (len(line) <= WIDTH and not (split and splittable)):
        return [line]
    if splittable:
        inside = [_entry(inner, item, indent + "  ", 0, column > 0) for inner, item in value.items()]
        return [head, *(row for rows in inside for row in rows)]
    if isinstance(value, list):
        return [head, *(f"{indent}  - {_flow(item)}" for item in value)]
    return [line]


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(_flow_pair(_key(key), _flow(item)) for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, str):
        return _scalar(value, _PLAIN_FLOW)
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _flow_pair(key: str, value: str) -> str:
    return f"{key}: {value}" if len(key) <= _LONGEST_SIMPLE_KEY else f"? {key} : {value}"


def _key(key: str) -> str:
    return _scalar(key, _PLAIN_FLOW)


def _scalar(text: str, safe: re.Pattern[str]) -> str:
    """The text without quotes where it reads back as the same text, otherwise in double quotes."""
    if safe.fullmatch(text) and not text.endswith((" ", ":")) and ": " not in text and text != "..." and _is_text(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _is_text(text: str) -> bool:
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False
