from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from fopru_graph.graph import Executor, Graph, RunRecord, describe
from tests.graph import toys


def pipeline(graph: Graph) -> Graph:
    size = graph.input("size", "int", 4)
    keep = graph.Keep(scores=graph.Score(picture=graph.Load(size=size)))
    graph.output("total", graph.Total(values=keep))
    graph.output("picture", graph.Load(size=2))
    return graph


def test_a_record_is_json_with_everything_in_it(graph, tmp_path):
    result = pipeline(graph).run(sets={"size": 6, "keep.ratio": 1.0})
    result.record.save(tmp_path / "run.json")
    data = json.loads((tmp_path / "run.json").read_text())
    assert data["status"] == "done"
    assert data["inputs"] == {"size": 6}
    assert data["outputs"] == {"total": 15.0, "picture": "Picture(pixels=tuple of 2: 0, …)"}
    assert "default: 6" in data["pipeline"]
    assert "ratio: 1.0" in data["pipeline"]
    assert set(data["nodes"]) == {"load", "score", "keep", "total", "load_2"}
    assert set(data["nodes"]["score"]) == {
        *("type", "version", "key", "made_of", "inputs", "ms", "cached", "outputs", "report"),
    }
    assert data["nodes"]["keep"]["inputs"] == {
        "scores": "$score.output", "ratio": 1.0, "order": "best", "tokens": None,
    }  # fmt: skip
    assert data["nodes"]["score"]["report"] == {"count": 6}
    assert data["versions"]["python"]


def test_a_record_replays_to_equal_outputs_and_keys(graph, tmp_path):
    first = pipeline(graph).run(sets={"size": 6})
    first.record.save(tmp_path / "run.json")
    record = RunRecord.load(tmp_path / "run.json")
    assert record == first.record
    again = Graph.from_record(record, graph.registry).run()
    assert again["total"] == first["total"]
    assert {name: entry["key"] for name, entry in again.record.nodes.items()} == {
        name: entry["key"] for name, entry in record.nodes.items()
    }


def test_versions_may_be_given(graph):
    record = Executor(versions={"mine": "1"}).run(pipeline(graph)).record
    assert record.versions == {"mine": "1"}


def test_nothing_of_the_environment_is_in_a_record(graph, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    assert "hf_very_secret" not in json.dumps(pipeline(graph).run().record.to_json())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "what": 3}'])
def test_a_file_that_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="is no run record of format 1"):
        RunRecord.load(tmp_path / "a.json")


def test_the_result_is_a_mapping(graph):
    result = pipeline(graph).run()
    assert list(result) == ["total", "picture"]
    assert dict(result.items())["total"] == 5.0
    assert result == dict(result)
    assert set(result.timings) == {"load", "score", "keep", "total", "load_2"}


class Tensor:
    """Looks like one."""

    shape = (576, 1024)
    dtype = "torch.float16"


@dataclass
class Box:
    """Holds things."""

    a: Any
    b: Any = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Tensor(), "Tensor (576, 1024) float16"),
        (Box(Tensor()), "Box(a=Tensor (576, 1024) float16, b=1)"),
        (Box(Box(Box(1))), "Box(a=Box(a=Box, b=1), b=1)"),
        ([1, 2], "list of 2: 1, …"),
        ((), "tuple of 0"),
        ({"a": 1}, "dict of 1: a"),
        ("x" * 100, f"{'x' * 60!r}… (100 characters)"),
        (None, "None"),
        (0.5, "0.5"),
        (toys.Scores((1.0,)), "Scores(values=tuple of 1: 1.0)"),
        (object, "type"),
    ],
)
def test_values_in_a_few_words(value, text):
    assert describe(value) == text
