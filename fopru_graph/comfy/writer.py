"""Writes a prompt as a workflow: levels of nodes, links by number across the borders of subgraphs, places, order."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from fopru_graph.comfy.canvas_nodes import host_node, is_position, output, planned, primitive, socket
from fopru_graph.comfy.layout import Size, placed
from fopru_graph.comfy.plan import NodePlan
from fopru_graph.comfy.prompt import Prompt

VERSION = 0.4  # of the format that the frontends write and read
BYPASSED = 4  # the mode of a node that is led around
FROM_OUTSIDE, TO_OUTSIDE = -10, -20  # ids of a subgraph's own ends
# Ids follow from names, so that files are the same each time.
_SPACE = uuid.UUID("6d0cf1f2-5b0e-4cf1-9d0a-3f6f70727567")
_SUBGRAPH_MARGIN = 220

End = tuple[str, int]  # the id of a node, and the number of one of its sockets
# An output, the subgraph's node that gets it, and the name and type of the input there.
Border = tuple[End, str, str, str]


@dataclass(frozen=True)
class Link:
    """A link inside of one level, by local ids."""

    number: int
    source: End
    target: End
    type: str

    def as_list(self) -> list[Any]:
        """As the canvas has it."""
        return [self.number, *self.source, *self.target, self.type]

    def as_object(self) -> dict[str, Any]:
        """As a subgraph has it, whose own ends are numbers."""
        numbers: dict[str, Any] = {str(end): end for end in (FROM_OUTSIDE, TO_OUTSIDE)}
        origin, target = (numbers.get(end, end) for end, _ in (self.source, self.target))
        return {
            "id": self.number, "origin_id": origin, "origin_slot": self.source[1], "target_id": target,
            "target_slot": self.target[1], "type": self.type,
        }  # fmt: skip


@dataclass
class _Level:
    """The canvas, or the inside of one subgraph, while it is written; nodes go by their local ids.

    Attributes:
        path: the id of the node that holds it; "" for the canvas.
        entering: the subgraph's inputs, by the ends of the links outside: name and type.
        leaving: its outputs, by the ends of the links inside: name and type.
    """

    path: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    entering: dict[End, tuple[str, str]] = field(default_factory=dict)
    leaving: dict[End, tuple[str, str]] = field(default_factory=dict)

    def node(self, local: str) -> dict[str, Any]:
        """The node of this local id, which a subgraph inside has until that is finished, too."""
        return self.nodes.setdefault(local, {"id": local, "inputs": [], "outputs": []})


class Writer:
    """Writes prompts as workflows; ``name`` makes ids of subgraphs, ``off`` are ids of nodes that are bypassed."""

    def __init__(self, known: Mapping[str, NodePlan], name: str, off: Set[str] = frozenset()) -> None:
        self._plans = known
        self._name = name
        self._off = off
        self._levels: dict[str, _Level] = {"": _Level("")}
        self._last = 0

    def workflow(
        self,
        prompt: Prompt,
        canvas: Mapping[str, Any],
        entering: Iterable[Border] = (),
        leaving: Iterable[tuple[End, str]] = (),
    ) -> dict[str, Any]:
        """The workflow of a prompt.

        Args:
            prompt: its nodes.
            canvas: places of nodes by their ids.
            entering: what subgraphs get first, whatever reads it there.
            leaving: outputs of nodes in subgraphs that these give first under a name, whatever reads them outside.
        """
        for identity in prompt:
            self._level(_parent(identity)).node(_local(identity))
        for identity, entry in prompt.items():
            self._fill(identity, entry)
        for source, host, name, kind in entering:
            self._enter(source, host, name, kind)
        for end, name in leaving:
            self._leave(end, name, self._named_output(end)[1])
        for identity, entry in prompt.items():
            self._connect(identity, entry)
        # Inner subgraphs first: what holds them must know their sockets.
        inside = sorted((path for path in self._levels if path), key=lambda path: -path.count(":"))
        definitions = [self._definition(self._levels[path], canvas) for path in inside]
        root = self._levels[""]
        self._place(root, canvas)
        found: dict[str, Any] = {
            "id": str(uuid.uuid5(_SPACE, self._name)), "revision": 0, "last_node_id": 0, "last_link_id": self._last,
            "nodes": list(root.nodes.values()), "links": [link.as_list() for link in root.links], "groups": [],
            "config": {}, "extra": {}, "version": VERSION,
        }  # fmt: skip
        return found | ({"definitions": {"subgraphs": definitions[::-1]}} if definitions else {})

    def _level(self, path: str) -> _Level:
        """The level inside of the node ``path``, which is there, and whose node is there from now on."""
        if path not in self._levels:
            self._level(_parent(path)).node(_local(path))
            self._levels[path] = _Level(path)
        return self._levels[path]

    def _fill(self, identity: str, entry: Mapping[str, Any]) -> None:
        """The node but for its links and its place."""
        node = self._levels[_parent(identity)].node(_local(identity))
        plan = self._plans.get(entry["class_type"])
        node |= primitive(entry, node["id"]) if plan is None else planned(plan, entry["inputs"], node["id"])
        node["mode"] = BYPASSED if identity in self._off else 0

    # -- links --------------------------------------------------------------------------------------------------------

    def _connect(self, identity: str, entry: Mapping[str, Any]) -> None:
        for key, value in entry["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                self._link((source, slot), identity, key)

    def _link(self, end: End, target: str, key: str) -> None:
        """Link an output to an input, through the borders of subgraphs between them."""
        path = _common(_parent(end[0]), _parent(target))
        name, kind = self._named_output(end)
        while _parent(end[0]) != path:
            end, name = self._leave(end, name, kind)
        inner = target
        steps = []
        while _parent(inner) != path:
            steps.append(inner := _parent(inner))
        for host in reversed(steps):
            end = self._enter(end, host, key, kind)
        self._join(self._levels[_parent(target)], end, _local(target), key, kind)

    def _named_output(self, end: End) -> tuple[str, str]:
        output = self._levels[_parent(end[0])].nodes[_local(end[0])]["outputs"][end[1]]
        return output["name"], output["type"]

    def _leave(self, end: End, name: str, kind: str) -> tuple[End, str]:
        """Hand an output of a node to the outside of its subgraph; returns the end there."""
        path = _parent(end[0])
        level = self._levels[path]
        inner = (_local(end[0]), end[1])
        host = self._levels[_parent(path)].nodes[_local(path)]
        if inner not in level.leaving:
            level.leaving[inner] = (_free(name, [known for known, _ in level.leaving.values()]), kind)
            host["outputs"].append(output(level.leaving[inner][0], kind))
            self._add(level, inner, (str(TO_OUTSIDE), len(level.leaving) - 1), kind)
        return (path, list(level.leaving).index(inner)), level.leaving[inner][0]

    def _enter(self, end: End, host: str, key: str, kind: str) -> End:
        """Hand an output to the inside of a subgraph; returns the end there."""
        level = self._levels[host]
        if end not in level.entering:
            name = _free(key.rpartition(".")[2], [known for known, _ in level.entering.values()])
            level.entering[end] = (name, kind)
            outside = self._levels[_parent(host)]
            outside.nodes[_local(host)]["inputs"].append(socket(name, kind))
            self._join(outside, end, _local(host), name, kind)
        return (f"{host}:{FROM_OUTSIDE}", list(level.entering).index(end))

    def _join(self, level: _Level, end: End, target: str, key: str, kind: str) -> None:
        inputs = level.nodes[target]["inputs"]
        place = next(place for place, each in enumerate(inputs) if each["name"] == key)
        source = (_local(end[0]), end[1])
        inputs[place]["link"] = self._add(level, source, (target, place), kind)

    def _add(self, level: _Level, source: End, target: End, kind: str) -> int:
        self._last += 1
        level.links.append(Link(self._last, source, target, kind))
        if source[0] in level.nodes:
            output = level.nodes[source[0]]["outputs"][source[1]]
            output["links"] = [*(output["links"] or []), self._last]
        return self._last

    # -- levels -------------------------------------------------------------------------------------------------------

    def _definition(self, level: _Level, canvas: Mapping[str, Any]) -> dict[str, Any]:
        """The subgraph of a level, and what its node outside shows."""
        identity = str(uuid.uuid5(_SPACE, f"{self._name}/{level.path}"))
        right = self._place(level, canvas)
        host = self._levels[_parent(level.path)].nodes[_local(level.path)]
        host |= host_node(identity, host["id"], host["inputs"], host["outputs"])
        return {
            "id": identity, "version": 1, "revision": 0, "config": {}, "name": host["id"],
            "state": {"lastGroupId": 0, "lastNodeId": 0, "lastLinkId": self._last, "lastRerouteId": 0},
            "inputNode": {"id": FROM_OUTSIDE, "bounding": [-_SUBGRAPH_MARGIN, 0, 120, 40 + 20 * len(level.entering)]},
            "outputNode": {"id": TO_OUTSIDE, "bounding": [right + 60, 0, 120, 40 + 20 * len(level.leaving)]},
            "inputs": self._ends(level, level.entering.values(), FROM_OUTSIDE),
            "outputs": self._ends(level, level.leaving.values(), TO_OUTSIDE),
            "widgets": [], "nodes": list(level.nodes.values()), "groups": [],
            "links": [link.as_object() for link in level.links], "extra": {},
        }  # fmt: skip

    def _ends(self, level: _Level, sockets: Iterable[tuple[str, str]], end: int) -> list[dict[str, Any]]:
        found = []
        for place, (name, kind) in enumerate(sockets):
            mine = (str(end), place)
            links = [link.number for link in level.links if mine in (link.source, link.target)]
            identity = str(uuid.uuid5(_SPACE, f"{self._name}/{level.path}/{end}/{name}"))
            found.append({"id": identity, "name": name, "type": kind, "linkIds": links, "pos": [0, 20 * place]})
        return found

    def _place(self, level: _Level, canvas: Mapping[str, Any]) -> float:
        """Give the nodes their places and their order; returns the right edge."""
        sizes: dict[str, Size] = {name: (node["size"][0], node["size"][1]) for name, node in level.nodes.items()}
        inner = [(link.source[0], link.target[0]) for link in level.links]
        links = [pair for pair in inner if set(pair) <= sizes.keys()]
        automatic = placed(sizes, links)
        for order, name in enumerate(sorted(automatic, key=lambda name: automatic[name])):
            node = level.nodes[name]
            node["order"] = order
            wanted: Any = canvas.get(f"{level.path}:{name}".removeprefix(":").replace(":", "/"))
            node["pos"] = list(wanted if is_position(wanted) else automatic[name])
        return max((node["pos"][0] + node["size"][0] for node in level.nodes.values()), default=0)


def _parent(identity: str) -> str:
    return identity.rpartition(":")[0]


def _local(identity: str) -> str:
    return identity.rpartition(":")[2]


def _common(path: str, other: str) -> str:
    """The innermost level that holds both."""
    parts = zip(path.split(":"), other.split(":"), strict=False)
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], parts)
    return ":".join(part for part, _ in shared)


def _free(name: str, taken: Sequence[str]) -> str:
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(free for free in names if free not in taken)
