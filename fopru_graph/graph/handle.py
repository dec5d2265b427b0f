"""What building a graph in Python passes around: stand-ins for the outputs of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fopru_graph.graph.errors import Problem, UnknownAttribute, hint_choices
from fopru_graph.graph.values import Link, Ref

if TYPE_CHECKING:
    from fopru_graph.graph.graph import Graph


class Handle(Link):
    """A node of `Graph.add`: stands for its sole output; ``handle.name`` and ``handle["name"]`` are one of several."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = graph
        self._name = name

    def _as_ref(self) -> Ref:
        return Ref(self._name)

    def __getitem__(self, output: str) -> Ref:
        spec = self._graph.registry.find(self._graph.node(self._name).type)
        if spec is not None and output not in spec.outputs:
            message = f"{self._name} ({spec.type}) has no output {output!r}"
            hint = hint_choices(output, spec.outputs)
            raise UnknownAttribute([Problem("unknown-output", message, node=self._name, hint=hint)])
        return Ref(self._name, output)

    def __getattr__(self, output: str) -> Ref:
        if output.startswith("_"):
            raise AttributeError(output)
        return self[output]

    def __str__(self) -> str:
        return f"${self._name}"

    def __repr__(self) -> str:
        return f"Handle({self})"
