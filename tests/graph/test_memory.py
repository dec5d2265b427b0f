"""The memory cache is bounded by the bytes of what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from fopru_graph.graph import Graph, MemoryCache, Node, node
from tests.graph import toys


@dataclass(frozen=True, eq=False)
class Array:
    """Stands for a tensor: it tells its bytes."""

    nbytes: int = 100


@dataclass(frozen=True, eq=False)
class Features:
    """A data class that holds some."""

    arrays: tuple[Array, ...]


@node(category="toy")
class Encode(Node):
    """Two arrays of 100 bytes, and a note of the call."""

    def run(self, picture: int = 0) -> Features:
        toys.note("Encode")
        return Features((Array(), Array()))


@node(category="toy")
class Prune(Node):
    """A new array of 100 bytes beside one of the features."""

    def run(self, features: Features, ratio: float = 1.0) -> Features:
        toys.note("Prune")
        return Features((features.arrays[0], Array()))


@pytest.fixture
def pruned(graph: Graph) -> Graph:
    graph.registry.add(Encode)
    graph.registry.add(Prune)
    graph.output("x", graph.Prune(features=graph.Encode(id="encode"), id="prune"))
    return graph


def test_many_runs_keep_no_more_bytes_than_the_cache_may_have(pruned):
    cache = MemoryCache(max_bytes=1000)
    for picture in range(30):
        pruned.run(cache=cache, sets={"encode.picture": picture})
        assert cache.nbytes <= 1000
    assert cache.nbytes == 900 and len(cache) == 6  # 300 a run, because what two nodes share counts once


def test_outputs_that_were_not_used_for_longest_make_room():
    cache = MemoryCache(max_bytes=200)
    for run in ("put a", "put b", "get a", "put c"):
        cache.fit(1)
        cache.put(run[-1], {"output": Array()}) if run.startswith("put") else cache.get(run[-1])
    assert [key in cache for key in "abc"] == [True, False, True]


def test_what_the_latest_run_used_stays_even_if_it_is_larger_so_that_the_next_ratio_encodes_nothing(pruned, calls):
    cache = MemoryCache(max_bytes=50)
    for ratio in (1.0, 0.5, 0.25):
        pruned.run(cache=cache, sets={"prune.ratio": ratio})
    assert calls == ["Encode", "Prune", "Prune", "Prune"]
    assert cache.nbytes == 300  # the encoding and the pruned features of the latest run
    pruned.run(cache=cache, sets={"encode.picture": 1})
    assert cache.nbytes == 300


def test_what_has_no_bytes_is_not_dropped_for_bytes():
    cache = MemoryCache(max_bytes=150)
    cache.put("model", {"output": object()})
    for run in range(4):
        cache.fit(1)
        cache.put(str(run), {"output": Array()})
    assert [key in cache for key in ("model", "0", "1", "2", "3")] == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ([Array(), (Array(7),), {"a": {"b": Array(1)}}], 108),
        (Features((Array(), Array())), 200),
        ([Features((Array(3),)), "text", 5, None, Array, Features], 3),
        (SimpleNamespace(nbytes="many"), 0),
        (type("Sparse", (), {"nbytes": property(lambda self: 1 // 0)})(), 0),
    ],
)
def test_bytes_are_found_in_containers_and_fields_and_a_value_that_cannot_tell_them_costs_no_answer(
    value: Any, size: int
):
    cache = MemoryCache()
    cache.put("key", {"output": value})
    assert cache.nbytes == size
    cache.put("key", {"output": Array(5)})  # the entry that it replaces counts no longer
    assert cache.nbytes == 5
    cache.clear()
    assert cache.nbytes == 0


def test_a_value_that_holds_itself_is_counted_once():
    @dataclass
    class Knot:
        array: Array
        inner: Any = None

    knot = Knot(Array())
    knot.inner = knot
    cache = MemoryCache()
    cache.put("key", {"output": knot})
    assert cache.nbytes == 100
