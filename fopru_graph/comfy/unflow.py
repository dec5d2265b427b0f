"""A workflow of ComfyUI's canvas as an API prompt, by the frontend's own rules (its graphToPrompt).

Values go by name where the file has names, else by position. Links are followed through subgraphs, reroutes and
bypassed nodes; what is inside of a subgraph is called ``HOST:INNER``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fopru_graph.comfy.canvas_nodes import CONTROL
from fopru_graph.comfy.levels import MUTED, Level, Node, Position, listed, nodes_of, refuse
from fopru_graph.comfy.plan import NodePlan
from fopru_graph.comfy.prompt import Prompt
from fopru_graph.comfy.writer import BYPASSED, FROM_OUTSIDE

_AFTER_GENERATE = ("fixed", "randomize", "increment", "decrement")  # a widget of the frontend's own behind a seed
_REROUTE, _HELD = "Reroute", "PrimitiveNode"  # nodes that the frontend alone knows
_FIRST = {"LoadImage": "image"}  # ComfyUI's own nodes whose only value of interest is the first; else it is `value`
_ANY = ("", "*")  # types that go with each other one

End: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class _Value:
    """What stands at the other end of a link where that is no node's output."""

    value: Any


def prompt_of_workflow(
    workflow: Mapping[str, Any], plans: Mapping[str, NodePlan], by_title: bool = False
) -> tuple[Prompt, dict[str, Position]]:
    """The prompt that the frontend sends for a workflow, and where each node stands, both by id.

    Args:
        workflow: as the frontend saves it.
        plans: of our node types.
        by_title: as `nodes_of`.

    Raises:
        PipelineError: what is wrong with the file, by node.
    """
    nodes = nodes_of(workflow, by_title)
    reader = _Reader(plans)
    prompt = {identity: reader.entry(node) for identity, node in nodes.items() if _is_sent(node)}
    return prompt, {identity: node.position for identity, node in nodes.items() if node.position is not None}


def _is_sent(node: Node) -> bool:
    """Whether the frontend sends this node."""
    virtual = node.inside is not None or node.type in (_REROUTE, _HELD)
    return not virtual and node.mode not in (MUTED, BYPASSED)


@dataclass(frozen=True)
class _At:
    """A link by its number in its level, on the way to an input of this type."""

    level: Level
    number: Any
    wanted: str


class _Reader:
    def __init__(self, plans: Mapping[str, NodePlan]) -> None:
        self._plans = plans

    def entry(self, node: Node) -> dict[str, Any]:
        """The node of the prompt."""
        inputs = self._values(node)
        for socket in node.inputs:
            name = socket.get("name")
            if not isinstance(name, str) or socket.get("link") is None:
                continue
            end = _origin(_At(node.level, socket["link"], str(socket.get("type"))), node.identity)
            if isinstance(end, _Value):
                inputs[name] = end.value
            elif end is not None:
                inputs[name] = list(end)
            elif "widget" not in socket:
                inputs.pop(name, None)
        title = node.raw.get("title")
        meta = {"title": title if isinstance(title, str) else node.identity}
        return {"inputs": inputs, "class_type": node.type, "_meta": meta}

    # -- values -------------------------------------------------------------------------------------------------------

    def _values(self, node: Node) -> dict[str, Any]:
        """The values of the widgets by name."""
        plan = self._plans.get(node.type)
        named, values = node.raw.get("widgets_values_named"), node.raw.get("widgets_values")
        named = values if isinstance(values, Mapping) else named
        names = [slot.name for slot in plan.widgets] if plan is not None else [_FIRST.get(node.type, "value")]
        if isinstance(named, Mapping):
            found = {name: value for name, value in named.items() if name in names or plan is None and name != CONTROL}
        else:
            found = dict(zip(names, _without_control(names, listed(values)), strict=False))
        return found | {name: value for name, value in self._promoted(node).items() if name in found or plan is None}

    def _promoted(self, node: Node) -> dict[str, Any]:
        """Values that widgets of the subgraph around hold in place of this node's."""
        host = node.level.host
        if host is None:
            return {}
        properties = host.raw.get("properties")
        pairs = listed(properties.get("proxyWidgets")) if isinstance(properties, Mapping) else []
        values = host.raw.get("widgets_values")
        if not isinstance(values, list) or len(values) != len(pairs):
            return {}
        local = str(node.raw["id"])
        promoted = (
            (pair[1], value)
            for pair, value in zip(pairs, values, strict=True)
            if isinstance(pair, list) and len(pair) > 1 and str(pair[0]) == local and isinstance(pair[1], str)
        )
        return {name: value for name, value in promoted if value is not None}


def _origin(link: _At, reader: str) -> End | _Value | None:
    """The output of a node that is sent, or the value, behind a link; None if nothing is."""
    at: _At | End | _Value | None = link
    seen: set[tuple[int, Any]] = set()
    while isinstance(at, _At):
        step = (id(at.level), at.number)
        if step in seen:
            refuse("cycle", f"the links to node {reader} go round in a circle", reader)
        seen.add(step)
        at = _behind(at, reader)
    return at


def _behind(at: _At, reader: str) -> _At | End | _Value | None:
    """What is behind one link: an end, or the next link to follow."""
    if at.number is None:
        return None
    if not isinstance(at.number, int) or at.number not in at.level.links:
        refuse("bad-reference", f"the link {at.number} of node {reader} is not in the file", reader)
    origin, slot = at.level.links[at.number][:2]
    if origin == FROM_OUTSIDE and at.level.host is not None:
        return _outside(at.level, at.level.host, slot)
    if (node := at.level.nodes.get(str(origin))) is None:
        refuse("bad-reference", f"a link to node {reader} comes from node {origin}, which is not there", reader)
    if node.mode == MUTED:
        return None
    if node.mode == BYPASSED:
        passed = _passed(node, slot, at.wanted)
        return None if passed is None else _At(at.level, passed.get("link"), str(passed.get("type")))
    if node.type == _REROUTE:
        return _At(at.level, node.inputs[0].get("link") if node.inputs else None, at.wanted)
    if node.type == _HELD:
        return _Value(next(iter(listed(node.raw.get("widgets_values"))), None))
    if node.inside is not None:
        return _At(node.inside, node.inside.leaving.get(slot), at.wanted)
    return node.identity, slot


def _outside(inside: Level, host: Node, slot: int) -> _At | _Value | None:
    """What a subgraph's node has for one of its inputs: the link there, or the value of the widget in its place."""
    # Not by place: a file that is exported has no sockets of widgets without a link.
    name = inside.entering[slot] if 0 <= slot < len(inside.entering) else None
    socket = next((socket for socket in host.inputs if socket.get("name") == name), {})
    if socket.get("link") is not None:
        return _At(host.level, socket["link"], str(socket.get("type")))
    named, values = (host.raw.get(key) for key in ("widgets_values_named", "widgets_values"))
    if not isinstance(named, Mapping):
        named = dict(zip(inside.shown(), listed(values), strict=False))
    return _Value(named[name]) if named.get(name) is not None else None


def _passed(node: Node, slot: int, wanted: str) -> Mapping[str, Any] | None:
    """The socket whose link a bypassed node hands on from an output to an input of the type ``wanted``."""
    outputs, inputs = listed(node.raw.get("outputs")), node.inputs
    if not 0 <= slot < len(outputs) or not isinstance(outputs[slot], Mapping) or not inputs:
        return None
    if wanted in _ANY:
        return inputs[slot if slot < len(inputs) else 0]
    fitting = [
        place
        for place, socket in enumerate(inputs)
        if _fits(socket.get("type"), outputs[slot].get("type")) and _fits(socket.get("type"), wanted)
    ]
    same = [place for place, socket in enumerate(inputs) if socket.get("type") == wanted]
    return inputs[([slot] if slot in fitting else [*same, *fitting])[0]] if same or fitting else None


def _fits(given: Any, wanted: Any) -> bool:
    kinds = [set(str(kind).split(",")) for kind in (given, wanted)]
    return not kinds[0].isdisjoint(kinds[1]) or any(not kind.isdisjoint(_ANY) for kind in kinds)


def _without_control(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """The values without what the frontend puts behind a seed where a node does not forbid it."""
    kept = list(values)
    for place, name in enumerate(names):
        if len(kept) <= len(names):
            break
        if name in ("seed", "noise_seed") and place + 1 < len(kept) and kept[place + 1] in _AFTER_GENERATE:
            del kept[place + 1]
    return kept
