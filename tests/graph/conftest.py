from __future__ import annotations

import pytest

from fopru_graph.graph import Graph, Registry
from tests.graph import toys


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.add(*toys.ALL)
    return made


@pytest.fixture
def graph(registry: Registry) -> Graph:
    return Graph("test", registry=registry)


@pytest.fixture(autouse=True)
def calls() -> list[str]:
    """Which nodes ran, in order; empty at the start of a test."""
    toys.CALLS.clear()
    return toys.CALLS
