"""Pipelines by the names of those that ship: files, sub-graphs, records, and what is said where there is none."""

from __future__ import annotations

import pytest

from fopru_graph.graph import Graph, PipelineError, RunRecord
from fopru_graph.graph.shipped import find_pipeline, shipped_pipelines

OUTER = """format: 1
nodes:
  ask: {type: fopru_rank, inputs: {image: demo:night-cafe, ratio: 0.5, max_new_tokens: 4}}
outputs: {text: $ask.text}
"""


def test_a_name_is_a_file_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Graph.load("fopru_fastv") == Graph.load(shipped_pipelines()["fopru_fastv"])
    assert Graph.load("evs").name == "evs"  # in a folder
    (tmp_path / "fastv").mkdir()
    assert Graph.load("fastv").name == "fastv"
    Graph.load("fopru_rank").save("random")
    assert Graph.load("random").name == "fopru_rank"  # a file wins


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fopru_fast", "no pipeline of that name ships .did you mean 'fopru_fastv'"),
        ("fopru_fastv.yaml", "no file fopru_fastv.yaml .the name of the one that ships is fopru_fastv"),
        ("mine.yaml", "cannot read mine.yaml: No such file or directory"),
        (".", "cannot read .: Is a directory"),
    ],
)
def test_what_there_is_not_is_one_sentence_and_no_mistake_of_syntax(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=said) as caught:
        Graph.load(name)
    assert [problem.code for problem in caught.value.problems] == ["no-file"]


def test_a_sub_graph_may_be_one_that_ships(tmp_path):
    (tmp_path / "outer.yaml").write_text(OUTER)
    graph = Graph.load(tmp_path / "outer.yaml")
    assert graph.problems() == [] and graph.dumps() == OUTER
    result = graph.run(to="ask.text", out=tmp_path)
    assert result["ask.text"] == "cafe" and result.by_node["ask/generate"]["generation"].visual_per_layer[0] == 128
    built = Graph()
    built.output("text", built.add("fopru_rank", "ask", image="demo:night-cafe", ratio=0.5, max_new_tokens=4).text)
    assert built == graph and built.flat() == graph.flat()
    record = RunRecord(**result.record.to_json())
    assert list(record.blocks) == ["fopru_rank"]
    again = Graph.from_record(record).run(to="ask.text", out=tmp_path)
    assert again.record.nodes["ask/generate"]["key"] == result.record.nodes["ask/generate"]["key"]


def test_mistakes_in_a_sub_graph_that_ships_have_their_line_and_a_hint():
    text = OUTER.replace("ratio: 0.5", "ration: 0.5").replace("$ask.text", "$ask.txt")
    problems = [problem.text() for problem in Graph.loads(text).problems()]
    assert problems[0] == "line:3: ask.ration: fopru_rank has no input 'ration' (did you mean 'ratio'?)"
    assert "has no output 'txt' (did you mean 'text'?)" in problems[1]
    (problem,) = Graph.loads(OUTER.replace("fopru_rank", "fopru_rnk").replace("ask.text", "ask")).problems()
    assert (problem.code, problem.hint) == ("unknown-type", "did you mean 'fopru_rank'?")


def test_find_pipeline_takes_paths_as_they_are(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(OUTER)
    assert find_pipeline(file) == find_pipeline(str(file)) == file
