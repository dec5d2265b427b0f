"""Writing a `Model` as YAML text: equal models give equal bytes, and reading these gives an equal model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fopru_graph.graph.model import ENABLED, GraphNode, Model
from fopru_graph.graph.values import MISSING, Given, Ref, escape_dollars
from fopru_graph.graph.yaml.read import FORMAT
from fopru_graph.graph.yaml.tree import resolve

WIDTH = 120
_WIDEST_COLUMN = 28  # longer names do not count for the alignment, else one would indent all others too far
_LONGEST_SIMPLE_KEY = 120  # YAML allows 1024 bytes; longer keys get the explicit form ``? key : value``
# No question mark between braces: PyYAML's parser in Python, unlike libyaml, reads it as the mark of a key there.
_PLAIN_FLOW = re.compile(r"[\w$./][\w $./;()!'=+*%<>|~^&@:-]*")
_PLAIN_BLOCK = re.compile(r"[\w$./][\w $./;()?!'=+*%<>|~^&@:,\[\]{}-]*")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def dump(model: Model) -> str:
    """The model as the text of a pipeline file; of an object that was given in Python only what it is called."""
    lines = [f"format: {FORMAT}"]
    for key, text in (("name", model.name), ("description", model.description)):
        if text:
            lines.append(f"{key}: {_scalar(text, _PLAIN_BLOCK)}")
    inputs: dict[str, Any] = {}
    for name, declared in model.inputs.items():
        inputs[name] = {"type": declared.type}
        if declared.default is not MISSING:
            inputs[name]["default"] = escape_dollars(declared.default)
    lines += _section("inputs", inputs)
    lines += _section("nodes", {name: _node(entry) for name, entry in model.nodes.items()})
    if model.outputs:
        lines += _entry("outputs", {name: output.ref for name, output in model.outputs.items()})
    if model.ui is not None:
        lines += _entry("ui", model.ui)
    return "\n".join(lines) + "\n"


def _node(entry: GraphNode) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": entry.type}
    if not entry.enabled:
        fields[ENABLED] = False
    if entry.inputs:
        fields["inputs"] = escape_dollars(entry.inputs)
    for key, text in (("cache", entry.cache), ("comment", entry.comment)):
        if text is not None:
            fields[key] = text
    return fields


def _section(name: str, entries: Mapping[str, Any]) -> list[str]:
    """A block with one entry on each line and their values aligned in one column."""
    if not entries:
        return []
    widths = [len(_key(key)) for key in entries]
    column = 2 + max((width for width in widths if width <= _WIDEST_COLUMN), default=0) + 2
    return [f"{name}:", *(line for key, value in entries.items() for line in _entry(key, value, "  ", column))]


def _entry(key: str, value: Any, indent: str = "", column: int = 0, split: bool = False) -> list[str]:
    """A key and its value on one line if they fit, otherwise a mapping or list with one item on each line.

    ``split`` asks for the long form: a node that does not fit on one line gets one line for each input.
    """
    head = f"{indent}{_key(key)}:"
    flow = _flow(value)
    line = f"{head} ".ljust(column) + flow
    splittable = isinstance(value, dict) and all(len(_key(inner)) <= _LONGEST_SIMPLE_KEY for inner in value)
    if not value or (len(line) <= WIDTH and not (split and splittable)):
        return [line]
    if splittable:
        inside = [_entry(inner, item, indent + "  ", 0, column > 0) for inner, item in value.items()]
        return [head, *(text for lines in inside for text in lines)]
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
    if isinstance(value, Given):
        return json.dumps(str(value))
    if isinstance(value, str):
        return _scalar(value, _PLAIN_FLOW)
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _flow_pair(key: str, value: str) -> str:
    return f"{key}: {value}" if len(key) <= _LONGEST_SIMPLE_KEY else f"? {key} : {value}"


def _key(key: str) -> str:
    return _scalar(key, _PLAIN_FLOW)


def _scalar(text: str, safe: re.Pattern[str]) -> str:
    """The text without quotes if it reads back as the same text, otherwise in double quotes."""
    if safe.fullmatch(text) and not text.endswith((" ", ":")) and ": " not in text and text != "..." and _is_text(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _is_text(text: str) -> bool:
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False
