"""The content of a picture of a pipeline, in whatever format: shapes and the arrows between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fopru_graph.drawing.style import NEUTRAL, clean, colour_index, value_text
from fopru_graph.graph.model import GraphNode, Model, is_block
from fopru_graph.graph.values import INPUTS, MISSING, Ref, Value, refs_in

Kind = Literal["node", "input", "output"]
DISABLED = "disabled"  # the state of a node that is led around
_WORST_FIRST = ("failed", "done", "cached")


@dataclass(frozen=True)
class Shape:
    """A node, a pipeline input or a pipeline output; every text is on one line.

    ``id`` is safe in every format. ``details`` are lines such as ``ratio: 0.5``. A shape is ``missing`` if the pipeline
    refers to it but does not define it.
    """

    id: str
    kind: Kind
    name: str
    type: str = ""
    details: tuple[str, ...] = ()
    doc: str = ""
    colour: int = NEUTRAL
    missing: bool = False
    state: str = ""

    @property
    def dashed(self) -> bool:
        """Whether it takes no part in a run."""
        return self.missing or self.state == DISABLED


@dataclass(frozen=True)
class Arrow:
    """A link between two ids. ``output`` is empty for a single output; ``path`` is e.g. ``pruners[0]``."""

    source: str
    target: str
    input: str = ""
    output: str = ""
    path: str = ""


@dataclass(frozen=True)
class Picture:
    """The shapes of a pipeline by id, its inputs first, and all links."""

    title: str
    shapes: Mapping[str, Shape]
    arrows: tuple[Arrow, ...]


def picture_of(graph: Model, states: Mapping[str, str] | None = None) -> Picture:
    """The shapes and arrows of a graph, valid or not; ``states`` maps names of nodes to their run state."""
    return _Painter(graph, states or {}).picture()


class _Painter:
    def __init__(self, graph: Model, states: Mapping[str, str]) -> None:
        self.graph = graph
        self.states = states
        self.nodes = graph.nodes
        self.specs = {
            name: graph.registry.find(entry.type) if entry.type else None for name, entry in self.nodes.items()
        }
        self.shapes: dict[str, Shape] = {}
        self.arrows: list[Arrow] = []
        self._ids: dict[tuple[Kind, str], str] = {}

    def picture(self) -> Picture:
        for name, declared in self.graph.inputs.items():
            value = "" if declared.default is MISSING else f" = {value_text(declared.default)}"
            self._put(Shape(self._new_id("input", name), "input", clean(name), clean(declared.type + value)))
        for name, entry in self.nodes.items():
            self._put(self._node(name, entry))
        for name in self.graph.outputs:
            self._put(Shape(self._new_id("output", name), "output", clean(name)))
        for name, entry in self.nodes.items():
            for key, value in entry.inputs.items():
                self._links(value, self._ids["node", name], key)
        for name, output in self.graph.outputs.items():
            self._links(output.ref, self._ids["output", name], "")
        return Picture(clean(self.graph.name), self.shapes, tuple(self.arrows))

    def _new_id(self, kind: Kind, name: str) -> str:
        """A short id for a shape: not every format can hold the names that users give."""
        return self._ids.setdefault((kind, name), f"{kind[0]}{len(self._ids)}")

    def _put(self, shape: Shape) -> None:
        self.shapes[shape.id] = shape

    def _node(self, name: str, entry: GraphNode) -> Shape:
        spec = self.specs[name]
        known = spec is not None or is_block(entry.type)
        details = [f"{key}: {value_text(value)}" for key, value in entry.inputs.items() if _is_literal(value)]
        return Shape(
            self._new_id("node", name), "node", clean(name),
            type=clean(entry.type) if known else f"{clean(entry.type) or 'no type'} (unknown)",
            details=tuple(map(clean, details)),
            doc=clean(spec.summary if spec else entry.comment or ""),
            colour=colour_index(spec.category) if spec else NEUTRAL,
            missing=not known,
            state=self._state(name),
        )  # fmt: skip

    def _state(self, name: str) -> str:
        """The state of a node; for a sub-graph the worst state of its nodes."""
        if not self.nodes[name].enabled:
            return DISABLED
        if name in self.states:
            return clean(self.states[name])
        inside = {state for inner, state in self.states.items() if inner.startswith(f"{name}/")}
        return next((state for state in _WORST_FIRST if state in inside), "")

    def _links(self, value: Value, target: str, key: str) -> None:
        for path, ref in refs_in(value, key):
            source, output = self._source(ref)
            self.arrows.append(Arrow(source, target, clean(key), clean(output), clean(path)))

    def _source(self, ref: Ref) -> tuple[str, str]:
        """The id of the shape that a reference means, made up if there is none, and its output if that needs a name."""
        kind: Kind = "input" if ref.node == INPUTS else "node"
        name = (ref.output or "") if kind == "input" else ref.node
        if (kind, name) not in self._ids:
            self._put(Shape(self._new_id(kind, name), kind, clean(name), "missing", missing=True))
        spec = self.specs.get(ref.node)
        if kind == "input" or (spec is not None and len(spec.outputs) < 2):
            return self._ids[kind, name], ""
        return self._ids[kind, name], ref.output or ""


def _is_literal(value: Value) -> bool:
    """Whether the value holds more than references."""
    items = value if isinstance(value, list) and value else [value]
    return not all(isinstance(item, Ref) for item in items)
