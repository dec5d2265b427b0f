"""What is said of a single value where a list is wanted, and of a value out of bounds."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from fopru_graph.graph import Graph, Node, Registry, node
from fopru_graph.graph.sockets import BadLiteral, read_literal


@node(category="toy")
class Dial(Node):
    """A node with a bounded input."""

    def run(self, level: Annotated[float, Field(le=1, description="how loud it is")]) -> float:
        return level


@pytest.mark.parametrize("value", ["abc", 7])
def test_a_single_value_for_a_list_is_told_to_be_written_as_one(value):
    with pytest.raises(BadLiteral) as refused:
        read_literal(list[str] | None, value)
    assert refused.value.hint == "write a list: [first, second]"


def test_a_bound_says_what_it_bounds():
    registry = Registry()
    registry.add(Dial)
    graph = Graph(registry=registry)
    graph.add("Dial", "dial", level=2.0)
    problem = next(each for each in graph.problems() if each.input == "level")
    assert (problem.code, problem.hint) == ("out-of-range", "level: how loud it is")
