"""Single nodes of a workflow as the canvas writes them: sockets, widgets and size, without links and place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fopru_graph.comfy.layout import size_of
from fopru_graph.comfy.plan import MOST, NodePlan, Slot

PRIMITIVES = {  # ComfyUI's own nodes that hold a value, by the kind of widget, and the type of their links
    "text": ("PrimitiveStringMultiline", "STRING"),
    "int": ("PrimitiveInt", "INT"),
    "float": ("PrimitiveFloat", "FLOAT"),
    "bool": ("PrimitiveBoolean", "BOOLEAN"),
}
_PREVIEWED, _PREVIEW = ("image", "video"), 240  # kinds of files that the frontend shows below the widgets, and how high
_OPTIONAL = 7  # the shape of the socket of a link that may be missing


def planned(plan: NodePlan, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A node of ours, with the values of its widgets; links are left open."""
    slots = sorted((slot for slot in plan.slots if slot.kind == "link"), key=lambda slot: slot.optional)
    sockets = [each for slot in slots for each in _sockets(slot, values)]
    widgets = [socket(slot.name, slot.types[0], widget={"name": slot.name}) for slot in plan.widgets]
    shown = {slot.name: _shown(slot, values.get(slot.name)) for slot in plan.widgets}
    long = sum(slot.multiline and not slot.advanced for slot in plan.widgets)
    rows = max(len(sockets), len(plan.outputs))
    outputs = [output(out.name, out.type) for out in plan.outputs]
    properties = {"Node name for S&R": plan.type}
    width, height = size_of(rows, len(widgets) - long, long, name)
    shows_file = any(slot.socket.path is not None and slot.socket.path.kind in _PREVIEWED for slot in plan.widgets)
    size = (width, height + _PREVIEW * shows_file)
    return _node(plan.type, name, size, [*sockets, *widgets], outputs) | {
        "properties": properties, "widgets_values": list(shown.values()), "widgets_values_named": shown,
    }  # fmt: skip


def primitive(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One of ComfyUI's nodes that hold a value, from the entry of a prompt."""
    type_name, value = entry["class_type"], entry["inputs"]["value"]
    kind = dict(PRIMITIVES.values())[type_name]
    long = type_name.endswith("Multiline")
    # The frontend adds a widget to an integer of ComfyUI's own, and without a value there draws a new one each run.
    held = {"value": value} | ({"control_after_generate": "fixed"} if kind == "INT" else {})
    inputs, outputs = [socket("value", kind, widget={"name": "value"})], [output(kind, kind)]
    return _node(type_name, name, size_of(1, not long, long, name), inputs, outputs) | {
        "properties": {"Node name for S&R": type_name}, "widgets_values": list(held.values()),
        "widgets_values_named": held,
    }  # fmt: skip


def host_node(subgraph: str, name: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """The node that stands for a subgraph, by the subgraph's id."""
    size = size_of(max(len(inputs), len(outputs)), 0, 0, name)
    return _node(subgraph, name, size, inputs, outputs) | {"properties": {"proxyWidgets": []}, "widgets_values": []}


def socket(name: str, kind: str, optional: bool = False, **more: Any) -> dict[str, Any]:
    """An input; what belongs to a widget says so in ``more``."""
    shape = {"shape": _OPTIONAL} if optional else {}
    return {"localized_name": name.rpartition(".")[2], "name": name, **shape, "type": kind, **more, "link": None}


def output(name: str, kind: str) -> dict[str, Any]:
    """An output."""
    return {"localized_name": name, "name": name, "type": kind, "links": None}


def is_position(value: Any) -> bool:
    """Whether a value says where a node stands."""
    return isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value)


def _node(type_name: str, name: str, size: tuple[int, int], inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
    return {
        "type": type_name, "pos": [0, 0], "size": list(size), "flags": {}, "order": 0, "mode": 0, "inputs": inputs,
        "outputs": outputs, "title": name,
    }  # fmt: skip


def _shown(slot: Slot, value: Any) -> Any:
    """What the widget holds; behind a link it is what a new node has."""
    return slot.default if value is None or isinstance(value, list) else value


def _sockets(slot: Slot, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sockets of a link; one that grows has one more than there are links."""
    if not slot.growing:
        return [socket(slot.name, ",".join(slot.types), optional=slot.optional)]
    linked = sum(key.startswith(f"{slot.name}.") for key in values)
    names = [f"{slot.name}.{slot.member}{number}" for number in range(min(linked + 1, MOST))]
    return [socket(name, ",".join(slot.types), slot.optional or place > 0) for place, name in enumerate(names)]
