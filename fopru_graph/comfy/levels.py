"""What the file of a workflow holds: the nodes of the canvas and of its subgraphs, with their links, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from fopru_graph.comfy.canvas_nodes import is_position
from fopru_graph.comfy.writer import BYPASSED, FROM_OUTSIDE, TO_OUTSIDE
from fopru_graph.graph import PipelineError, Problem
from fopru_graph.graph.check.expand import MAX_NESTING, MAX_NODES
from fopru_graph.graph.values import NAME

MUTED = 2  # the mode of a node that is not there

Position: TypeAlias = tuple[float, float]


@dataclass(eq=False)
class Level:
    """The canvas or the inside of a subgraph: its links by number, and the node that holds it.

    Attributes:
        entering: the names of a subgraph's inputs.
        leaving: the links to each of its outputs.
    """

    links: dict[int, tuple[Any, int, Any, int]]
    host: Node | None = None
    entering: list[str] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    leaving: dict[int, int] = field(default_factory=dict)

    def shown(self) -> list[str]:
        """The subgraph's inputs that its node shows as widgets: those that lead to widgets inside."""
        shown = [socket.get("link") for node in self.nodes.values() for socket in node.inputs if "widget" in socket]
        links = [self.links[number] for number in shown if isinstance(number, int) and number in self.links]
        slots = {slot for origin, slot, *_ in links if origin == FROM_OUTSIDE}
        return [name for slot, name in enumerate(self.entering) if slot in slots]


@dataclass(eq=False)
class Node:
    """A node of the file, and the level that it stands in."""

    identity: str
    raw: Mapping[str, Any]
    level: Level
    inside: Level | None = None

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
        return [socket for socket in listed(self.raw.get("inputs")) if isinstance(socket, Mapping)]

    @property
    def position(self) -> Position | None:
        """The upper left corner; None where the file has none."""
        place: Any = self.raw.get("pos")
        place = [place.get("0"), place.get("1")] if isinstance(place, Mapping) else place
        return (place[0], place[1]) if is_position(place) else None


def nodes_of(workflow: Mapping[str, Any], by_title: bool = False) -> dict[str, Node]:
    """All nodes of a workflow by id; what is inside of a subgraph is called ``HOST:INNER``.

    Args:
        workflow: as the frontend saves it.
        by_title: call a node that has a number after its title, where that can be a name. An id that comes again in
            another subgraph the frontend replaces by a number, and leaves the title.

    Raises:
        PipelineError: what is wrong with the file, by node.
    """
    return _File(workflow, by_title).nodes


class _File:
    def __init__(self, workflow: Mapping[str, Any], by_title: bool) -> None:
        self._by_title = by_title
        definitions = workflow.get("definitions")
        found = listed(definitions.get("subgraphs")) if isinstance(definitions, Mapping) else []
        self._subgraphs = {str(each.get("id")): each for each in found if isinstance(each, Mapping)}
        self.nodes: dict[str, Node] = {}
        self._read(workflow, "", None, 0)

    def _read(self, graph: Mapping[str, Any], prefix: str, host: Node | None, depth: int) -> Level:
        if depth > MAX_NESTING:
            refuse("bad-subgraph", f"subgraphs are nested more than {MAX_NESTING} levels deep", prefix)
        level = Level(dict(_links(graph.get("links"), prefix)), host)
        if host is not None:
            sockets = [socket for socket in listed(graph.get("inputs")) if isinstance(socket, Mapping)]
            level.entering = [str(socket.get("name")) for socket in sockets]
            level.leaving = {link[3]: number for number, link in level.links.items() if link[2] == TO_OUTSIDE}
        for raw in listed(graph.get("nodes")):
            if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str | int):
                refuse("bad-structure", "a node of the workflow has no id", prefix)
            identity = f"{prefix}:{self._local(raw, graph)}".removeprefix(":")
            node = level.nodes[str(raw["id"])] = Node(identity, raw, level)
            if identity in self.nodes:
                refuse("duplicate-id", f"two nodes have the id {identity}", identity)
            if len(self.nodes) >= MAX_NODES:
                refuse("too-many-values", f"the workflow has more than {MAX_NODES} nodes", identity)
            self.nodes[identity] = node
            if node.type in self._subgraphs:
                node.inside = self._read(self._subgraphs[node.type], identity, node, depth + 1)
        return level

    def _local(self, raw: Mapping[str, Any], graph: Mapping[str, Any]) -> str:
        identity = str(raw["id"])
        if not (self._by_title and identity.isdecimal()):
            return identity
        beside = [each for each in listed(graph.get("nodes")) if isinstance(each, Mapping)]
        title = self._title(raw)
        taken = {str(each.get("id")) for each in beside} | {self._title(each) for each in beside if each is not raw}
        return title if NAME.fullmatch(title) and title not in taken else identity

    def _title(self, raw: Mapping[str, Any]) -> str:
        """What is written above a node; of a subgraph's node the file may leave it out."""
        return str(raw.get("title") or self._subgraphs.get(str(raw.get("type")), {}).get("name"))


def _links(links: Any, prefix: str) -> Iterator[tuple[int, tuple[Any, int, Any, int]]]:
    """The links by number: origin and its slot, target and its slot."""
    for link in listed(links):
        if isinstance(link, Mapping):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            link = [link.get(name) for name in names]
        if not isinstance(link, list) or len(link) < 5 or not all(type(link[place]) is int for place in (0, 2, 4)):
            refuse("bad-structure", f"this is no link of a workflow: {str(link)[:80]}", prefix)
        if not all(isinstance(link[place], str | int) for place in (1, 3)):
            refuse("bad-structure", f"the link {link[0]} does not say from which node to which", prefix)
        yield link[0], (link[1], link[2], link[3], link[4])


def listed(value: Any) -> list[Any]:
    """A list, or the values of a mapping that stands for one; nothing else is taken for one."""
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, Mapping) else []


def refuse(code: str, message: str, node: str) -> NoReturn:
    """Raise the one problem that a file has, at a node; "" is the file."""
    raise PipelineError([Problem(code, message, node=node or None)])
