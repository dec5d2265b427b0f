"""A workflow of ComfyUI's canvas as an API prompt, by the frontend's own rules (its graphToPrompt).

Values go by name where the file has names, else by position. Links are followed through subgraphs, reroutes and
bypassed nodes; what is inside of a subgraph is called ``HOST:INNER``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from fopru_graph.comfy.canvas_nodes import is_position
from fopru_graph.comfy.plan import NodePlan
from fopru_graph.comfy.prompt import Prompt
from fopru_graph.comfy.writer import BYPASSED, FROM_OUTSIDE, TO_OUTSIDE
from fopru_graph.graph import PipelineError, Problem
from fopru_graph.graph.check.expand import MAX_NESTING, MAX_NODES

MUTED = 2  # the mode of a node that is not there
_AFTER_GENERATE = ("fixed", "randomize", "increment", "decrement")  # a widget of the frontend's own behind a seed
_REROUTE, _HELD = "Reroute", "PrimitiveNode"  # nodes that the frontend alone knows
_FIRST = {"LoadImage": "image"}  # ComfyUI's own nodes whose only value of interest is the first; else it is `value`

Position: TypeAlias = tuple[float, float]
End: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class _Value:
    """What stands at the other end of a link where that is no node's output."""

    value: Any


def prompt_of_workflow(
    workflow: Mapping[str, Any], plans: Mapping[str, NodePlan]
) -> tuple[Prompt, dict[str, Position]]:
    """The prompt that the frontend sends for a workflow, and where each node stands, both by id.

    Raises:
        PipelineError: what is wrong with the file, by node.
    """
    reader = _Reader(workflow, plans)
    prompt = {identity: reader.entry(node) for identity, node in reader.nodes.items() if reader.is_sent(node)}
    return prompt, {identity: node.position for identity, node in reader.nodes.items() if node.position is not None}


@dataclass(eq=False)
class _Level:
    """The canvas or the inside of a subgraph: its links by number, and the node that holds it."""

    links: dict[int, tuple[Any, int, Any, int]]
    host: _Node | None = None
    nodes: dict[str, _Node] = field(default_factory=dict)
    leaving: dict[int, int] = field(default_factory=dict)  # the links to each of a subgraph's outputs
    entering: list[str] = field(default_factory=list)  # the names of a subgraph's inputs


@dataclass(eq=False)
class _Node:
    """A node of the file, and the level that it stands in."""

    identity: str
    raw: Mapping[str, Any]
    level: _Level
    inside: _Level | None = None

    @property
    def type(self) -> str:
        """Its type; that of a subgraph is the subgraph's id."""
        return str(self.raw.get("type"))

    @property
    def mode(self) -> Any:
        """Whether it is muted or bypassed, and so are those inside of it."""
        host = self.level.host
        above = host.mode if host is not None else 0
        return above if above in (MUTED, BYPASSED) else self.raw.get("mode", 0)

    @property
    def inputs(self) -> list[Mapping[str, Any]]:
        """Its sockets."""
        return [socket for socket in _listed(self.raw.get("inputs")) if isinstance(socket, Mapping)]

    @property
    def position(self) -> Position | None:
        """The upper left corner; None where the file has none."""
        place: Any = self.raw.get("pos")
        place = [place.get("0"), place.get("1")] if isinstance(place, Mapping) else place
        return (place[0], place[1]) if is_position(place) else None


_At: TypeAlias = "tuple[_Level, Any]"  # a link by its number


class _Reader:
    def __init__(self, workflow: Mapping[str, Any], plans: Mapping[str, NodePlan]) -> None:
        self._plans = plans
        definitions = workflow.get("definitions")
        found = _listed(definitions.get("subgraphs")) if isinstance(definitions, Mapping) else []
        self._subgraphs = {str(each.get("id")): each for each in found if isinstance(each, Mapping)}
        self.nodes: dict[str, _Node] = {}
        self._read(workflow, "", None, 0)

    def _read(self, graph: Mapping[str, Any], prefix: str, host: _Node | None, depth: int) -> _Level:
        if depth > MAX_NESTING:
            _refuse("bad-subgraph", f"subgraphs are nested more than {MAX_NESTING} levels deep", prefix)
        level = _Level(dict(_links(graph.get("links"), prefix)), host)
        if host is not None:
            ends = _listed(graph.get("inputs"))
            level.entering = [str(end.get("name")) if isinstance(end, Mapping) else "" for end in ends]
        for number, (_, _, target, slot) in level.links.items():
            if target == TO_OUTSIDE and host is not None:
                level.leaving[slot] = number
        for raw in _listed(graph.get("nodes")):
            if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str | int):
                _refuse("bad-structure", "a node of the workflow has no id", prefix)
            identity = f"{prefix}:{raw['id']}".removeprefix(":")
            node = level.nodes[str(raw["id"])] = _Node(identity, raw, level)
            if identity in self.nodes:
                _refuse("duplicate-id", f"two nodes have the id {identity}", identity)
            if len(self.nodes) >= MAX_NODES:
                _refuse("too-many-values", f"the workflow has more than {MAX_NODES} nodes", identity)
            self.nodes[identity] = node
            if node.type in self._subgraphs:
                node.inside = self._read(self._subgraphs[node.type], identity, node, depth + 1)
        return level

    def is_sent(self, node: _Node) -> bool:
        """Whether the frontend sends this node."""
        virtual = node.inside is not None or node.type in (_REROUTE, _HELD)
        return not virtual and node.mode not in (MUTED, BYPASSED)

    def entry(self, node: _Node) -> dict[str, Any]:
        """The node of the prompt."""
        inputs = self._values(node)
        for socket in node.inputs:
            name = socket.get("name")
            if not isinstance(name, str) or socket.get("link") is None:
                continue
            end = self._origin(node.level, socket["link"], node.identity)
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

    def _values(self, node: _Node) -> dict[str, Any]:
        """The values of the widgets by name."""
        plan = self._plans.get(node.type)
        named, values = node.raw.get("widgets_values_named"), node.raw.get("widgets_values")
        named = values if isinstance(values, Mapping) else named
        names = [slot.name for slot in plan.widgets] if plan is not None else [_FIRST.get(node.type, "value")]
        if isinstance(named, Mapping):
            found = {name: value for name, value in named.items() if plan is None or name in names}
        else:
            found = dict(zip(names, _without_control(names, _listed(values)), strict=False))
        return found | {name: value for name, value in self._promoted(node).items() if name in found or plan is None}

    def _promoted(self, node: _Node) -> dict[str, Any]:
        """Values that widgets of the subgraph around hold in place of this node's."""
        host = node.level.host
        if host is None:
            return {}
        properties = host.raw.get("properties")
        pairs = _listed(properties.get("proxyWidgets")) if isinstance(properties, Mapping) else []
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

    # -- links --------------------------------------------------------------------------------------------------------

    def _origin(self, level: _Level, number: Any, reader: str) -> End | _Value | None:
        """The output of a node that is sent, or the value, behind a link; None if nothing is."""
        at: _At | End | _Value | None = (level, number)
        seen: set[tuple[int, Any]] = set()
        while isinstance(at, tuple) and isinstance(at[0], _Level):
            step = (id(at[0]), at[1])
            if step in seen:
                _refuse("cycle", f"the links to node {reader} go round in a circle", reader)
            seen.add(step)
            at = self._behind(at[0], at[1], reader)
        return at

    def _behind(self, level: _Level, number: Any, reader: str) -> _At | End | _Value | None:
        """What is behind one link: an end, or the next link to follow."""
        if number is None:
            return None
        if not isinstance(number, int) or number not in level.links:
            _refuse("bad-reference", f"the link {number} of node {reader} is not in the file", reader)
        origin, slot = level.links[number][:2]
        if origin == FROM_OUTSIDE and level.host is not None:
            return _outside(level.host, level, slot)
        if (node := level.nodes.get(str(origin))) is None:
            _refuse("bad-reference", f"a link to node {reader} comes from node {origin}, which is not there", reader)
        if node.mode == MUTED:
            return None
        if node.mode == BYPASSED:
            return level, _passed(node, slot)
        if node.type == _REROUTE:
            return level, node.inputs[0].get("link") if node.inputs else None
        if node.type == _HELD:
            return _Value(next(iter(_listed(node.raw.get("widgets_values"))), None))
        if node.inside is not None:
            return node.inside, node.inside.leaving.get(slot)
        return node.identity, slot


def _outside(host: _Node, inside: _Level, slot: int) -> _At | _Value | None:
    """What a subgraph's node has for one of its inputs: the link there, or the value of the widget in its place.

    The frontend (1.58.1) leaves sockets of unlinked widgets out of the node, so that only the subgraph counts them.
    """
    name = inside.entering[slot] if 0 <= slot < len(inside.entering) else None
    for socket in host.inputs:
        if socket.get("name") == name and socket.get("link") is not None:
            return host.level, socket["link"]
    named = host.raw.get("widgets_values_named")
    if not isinstance(named, Mapping):
        named = dict(zip(_promoted_inputs(inside), _listed(host.raw.get("widgets_values")), strict=False))
    return _Value(named[name]) if name in named else None


def _promoted_inputs(inside: _Level) -> list[str]:
    """The inputs of a subgraph that are linked to widgets, in their order."""
    shown = {socket.get("link") for node in inside.nodes.values() for socket in node.inputs if "widget" in socket}
    slots = {
        slot for number, (origin, slot, _, _) in inside.links.items() if origin == FROM_OUTSIDE and number in shown
    }
    return [name for slot, name in enumerate(inside.entering) if slot in slots]


def _passed(node: _Node, slot: int) -> Any:
    """The link that a bypassed node hands on: of the input in the same place if its type fits, else the first one."""
    outputs = [socket for socket in _listed(node.raw.get("outputs")) if isinstance(socket, Mapping)]
    kind = outputs[slot].get("type") if 0 <= slot < len(outputs) else None
    places = [slot, *range(len(node.inputs))]
    fitting = (node.inputs[place] for place in places if 0 <= place < len(node.inputs))
    return next((socket.get("link") for socket in fitting if _fits(socket.get("type"), kind)), None)


def _fits(given: Any, wanted: Any) -> bool:
    kinds = [set(str(kind).split(",")) for kind in (given, wanted)]
    return "*" in kinds[0] | kinds[1] or not kinds[0].isdisjoint(kinds[1])


def _without_control(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """The values without what the frontend puts behind a seed where a node does not forbid it."""
    kept = list(values)
    for place, name in enumerate(names):
        if len(kept) <= len(names):
            break
        if name in ("seed", "noise_seed") and place + 1 < len(kept) and kept[place + 1] in _AFTER_GENERATE:
            del kept[place + 1]
    return kept


def _links(links: Any, prefix: str) -> Iterator[tuple[int, tuple[Any, int, Any, int]]]:
    """The links by number: origin and its slot, target and its slot."""
    for link in _listed(links):
        if isinstance(link, Mapping):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            link = [link.get(name) for name in names]
        if not isinstance(link, list) or len(link) < 5 or not all(type(link[place]) is int for place in (0, 2, 4)):
            _refuse("bad-structure", f"this is no link of a workflow: {str(link)[:80]}", prefix)
        if not all(isinstance(link[place], str | int) for place in (1, 3)):
            _refuse("bad-structure", f"the link {link[0]} does not say from which node to which", prefix)
        yield link[0], (link[1], link[2], link[3], link[4])


def _listed(value: Any) -> list[Any]:
    """A list, or the values of a mapping that stands for one; nothing else is taken for one."""
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, Mapping) else []


def _refuse(code: str, message: str, node: str) -> NoReturn:
    raise PipelineError([Problem(code, message, node=node or None)])
