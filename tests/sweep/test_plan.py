"""From the lists of a sweep to its cells."""

from __future__ import annotations

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.tasks import get_task
from fopru_graph.graph import Graph
from fopru_graph.sweep.plan import CommonOptions, cell_of, combinations, distinct, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1, 2,3", ["1", "2", "3"]),
        ("[a, b], c", ["[a, b]", "c"]),
        ("'red, or blue?', it's", ["red, or blue?", "it's"]),
        ('"a,b"', ["a,b"]),
        ("'it''s red, or blue', x", ["it's red, or blue", "x"]),
        ("['a], b' , c], d", ["['a], b' , c]", "d"]),
        ("{k: [1, 2]}, null", ["{k: [1, 2]}", "null"]),
        ("", [""]),
    ],
)
def test_values_between_commas(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["1,,2", "[1, 2", "'open, 2"])
def test_broken_lists_are_refused(text):
    with pytest.raises(UserError):
        split_values(text)


def test_all_combinations_or_lists_in_step():
    product = combinations(["a.x=1,2", "b.y=p,q"], (0.5, 0.25))
    assert len(product) == 8 and product[0] == (("a.x=1", "b.y=p"), 0.5) and product[-1] == (("a.x=2", "b.y=q"), 0.25)
    assert combinations(["a.x=1,2", "b.y=p"], (0.5, 0.25), zipped=True) == [
        (("a.x=1", "b.y=p"), 0.5),
        (("a.x=2", "b.y=p"), 0.25),
    ]
    assert combinations([], None) == [((), None)]


@pytest.mark.parametrize(
    ("sets", "ratios", "zipped", "said"),
    [
        (["a.x"], None, False, "there is no ="),
        (["a.x=1", "a.x=2"], None, False, "given twice"),
        (["a.x=1,2", "b.y=1,2,3"], None, True, "a.x has 2, b.y has 3"),
        (["a.x=1"], (0.5,), True, "no lists"),
    ],
)
def test_what_cannot_be_combined_is_refused(sets, ratios, zipped, said):
    with pytest.raises(UserError, match=said):
        combinations(sets, ratios, zipped)


def cell(file, ratio, sets=(), limit=None, name=None):
    graph = Graph.load(file)
    graph.name = name or graph.name
    (variant,) = configurations_of(graph, (ratio,), {})
    return cell_of(variant, file, sets, get_task("scenes"), None, CommonOptions(out=file, limit=limit))


def test_a_cells_request_is_what_is_computed():
    rank, row = "pipelines/fopru_rank.yaml", "pipelines/fopru_row.yaml"
    requests = [it.request for it in (cell(rank, 0.5), cell(rank, 0.25), cell(row, 0.5), cell(rank, 0.5, limit=3))]
    assert len(set(requests)) == 4 and cell(rank, 0.5).request == requests[0]
    assert cell(rank, 0.5).label == "fopru_rank--scenes--r0.5"
    assert cell("pipelines/baseline.yaml", 1.0).label == "baseline--scenes--r1"


def test_two_cells_never_share_a_folder():
    rank = cell("pipelines/fopru_rank.yaml", 0.5)
    assert distinct([rank, rank]) == [rank]
    with pytest.raises(UserError, match="two cells have the results folder"):
        distinct([rank, cell("pipelines/fopru_row.yaml", 0.5, name="fopru_rank")])


def test_a_folders_name_tells_settings_apart_that_no_ratio_set():
    graph = Graph.load("pipelines/fopru_fastv.yaml")
    one, other = (configurations_of(graph, (0.25,), {"fastv.layer": layer})[0] for layer in (2, 3))
    assert one.settings == {"fastv.layer": 2, "ratio": 0.25}
    assert one.folder("x") != other.folder("x") and one.folder("x").startswith("fopru_fastv--x--r0.25--")
    graph.set("prune.ratio", 0.9)
    also = configurations_of(graph, (0.25,), {"fastv.layer": 2, "prune.ratio": 0.9})[0]
    assert also.settings == {"fastv.layer": 2, "prune.ratio": 0.5, "fastv.ratio": 0.5}
    assert also.folder("x") == one.folder("x")  # the ratio has the last word on what it sets
    plain = [configurations_of(graph, None, {"prune.ratio": ratio})[0].folder("x") for ratio in (0.5, 0.9)]
    assert plain[0] != plain[1] and plain[0].startswith("fopru_fastv--x--as-written--")
