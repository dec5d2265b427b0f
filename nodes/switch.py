from __future__ import annotations

from typing import Annotated, Any

from fopru_graph.graph import Lazy, Node, node


@node(category="flow")
class Switch(Node):
    """Pass on one of two inputs; nodes that only the other input needs do not run."""

    def run(self, when: bool, then: Annotated[Any, Lazy()], otherwise: Annotated[Any, Lazy()]) -> Any:
        return then if when else otherwise

    def needs(self, when: bool) -> list[str]:
        return ["then" if when else "otherwise"]
