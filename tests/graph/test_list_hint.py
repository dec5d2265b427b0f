"""What is said of a single value where a list is wanted."""

from __future__ import annotations

import pytest

from fopru_graph.graph.sockets import BadLiteral, read_literal


@pytest.mark.parametrize("value", ["abc", 7])
def test_a_single_value_for_a_list_is_told_to_be_written_as_one(value):
    with pytest.raises(BadLiteral) as refused:
        read_literal(list[str] | None, value)
    assert refused.value.hint == "write a list: [first, second]"


def test_a_bound_says_what_it_bounds():
    graph = Graph(registry=toys.registry()) if hasattr(toys, "registry") else None
    assert graph is not None
