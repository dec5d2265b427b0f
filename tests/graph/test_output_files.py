"""No two nodes write the same file: names follow the path of the node, and clashes are found before anything runs."""

from __future__ import annotations

import pytest

from fopru_graph.graph import Graph, NodeError

BLOCK = """\
format: 1
inputs: {text: {type: str}}
nodes:
  save: {type: Write, inputs: {text: $inputs.text}}
outputs: {path: $save}
"""
NESTED = """\
format: 1
inputs: {text: {type: str}}
nodes:
  inner: {type: ./block.yaml, inputs: {text: $inputs.text}}
outputs: {path: $inner}
"""


def problems(graph: Graph) -> list[tuple[str, str | None, int | None]]:
    return [(problem.code, problem.node, problem.line) for problem in graph.problems()]


def test_nodes_of_sub_graphs_write_files_of_their_own(tmp_path, registry):
    (tmp_path / "block.yaml").write_text(BLOCK)
    (tmp_path / "nested.yaml").write_text(NESTED)
    (tmp_path / "outer.yaml").write_text(
        "format: 1\nnodes:\n  a: {type: ./block.yaml, inputs: {text: one}}\n"
        "  b: {type: ./block.yaml, inputs: {text: two}}\n  c: {type: ./nested.yaml, inputs: {text: three}}\n"
        "  d: {type: Write, inputs: {text: four}}\n"
    )
    graph = Graph.load(tmp_path / "outer.yaml", registry)
    assert graph.problems() == []
    graph.run(out=tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a.a.txt": "one", "b.a.txt": "two", "c.inner.a.txt": "three", "a.txt": "four",
    }  # fmt: skip


@pytest.mark.parametrize("second", ["{}", "{file: a.txt}", "{file: A.txt}", "{file: ./a.txt}"])
def test_two_nodes_that_write_one_file_are_a_problem_with_both_lines(second, registry):
    text = f"format: 1\nnodes:\n  one: {{type: Write}}\n  two: {{type: Write, inputs: {second}}}\n"
    graph = Graph.loads(text, registry)
    [problem] = graph.problems()
    assert (problem.code, problem.node, problem.line) == ("same-file", "two", 4)
    assert "one (line 3)" in problem.message


def test_the_name_of_a_sub_graphs_file_and_of_the_record_are_taken(tmp_path, registry):
    (tmp_path / "block.yaml").write_text(BLOCK)
    (tmp_path / "outer.yaml").write_text(
        "format: 1\nnodes:\n  a: {type: ./block.yaml, inputs: {text: one}}\n"
        "  clash: {type: Write, inputs: {file: a.a.txt}}\n  record: {type: Write, inputs: {file: run.json}}\n"
    )
    graph = Graph.load(tmp_path / "outer.yaml", registry)
    assert problems(graph) == [("same-file", "clash", 4), ("same-file", "record", 5)]
    assert "block.yaml:4" in graph.problems()[0].message and "the run's record" in graph.problems()[1].message


def test_two_clashing_nodes_in_a_block_say_where_they_are(tmp_path, registry):
    (tmp_path / "block.yaml").write_text(BLOCK.replace("outputs:", "  again: {type: Write}\noutputs:"))
    (tmp_path / "outer.yaml").write_text("format: 1\nnodes:\n  a: {type: ./block.yaml, inputs: {text: one}}\n")
    [problem] = Graph.load(tmp_path / "outer.yaml", registry).problems()
    assert problem.message == "block.yaml:5: a/again would write the file a.a.txt of a/save (block.yaml:4)"


@pytest.mark.parametrize(("name", "says"), [("a.txt", "was written by first"), ("run.json", "is the run's record")])
def test_a_name_that_only_the_run_knows_is_refused_there(name, says, tmp_path, graph):
    graph.Write(id="first")
    graph.Write(id="second", file=graph.Text(text=name))
    assert graph.problems() == []
    with pytest.raises(NodeError, match=says):
        graph.run(out=tmp_path)
    assert (tmp_path / "a.txt").read_text() == ""


def test_a_second_run_writes_the_same_files_again(tmp_path, graph):
    graph.Write(text="x")
    for _ in range(2):
        graph.run(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
