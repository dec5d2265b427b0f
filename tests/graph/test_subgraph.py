from __future__ import annotations

import os
from pathlib import Path

import pytest

from fopru_graph.graph import Graph, Problem, Registry, expand
from fopru_graph.graph.yaml.read import read_text

BLOCK = """\
format: 1
inputs:
  picture: {type: Picture}
  ratio:   {type: float, default: 0.5}
nodes:
  score: {type: Score, inputs: {picture: $inputs.picture}}
  keep:  {type: Keep, inputs: {scores: $score, ratio: $inputs.ratio}}
outputs: {kept: $keep, scores: $score}
"""
OUTER = """\
format: 1
nodes:
  load:  {type: Load, inputs: {size: 4}}
  block: {type: ./block.yaml, inputs: {picture: $load, ratio: 1.0}}
  total: {type: Total, inputs: {values: $block.kept}}
outputs: {total: $total, scores: $block.scores}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "outer.yaml"


def load(folder: Path, registry: Registry, **files: str) -> Graph:
    return Graph.load(write(folder, **files), registry)


def errors(graph: Graph) -> list[Problem]:
    return [problem for problem in graph.problems() if problem.severity == "error"]


def test_a_block_runs_as_its_nodes_would(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER, block=BLOCK)
    assert graph.problems() == []
    result = graph.run()
    assert result["total"] == 6.0
    assert list(result.timings) == ["load", "block/score", "block/keep", "total"]
    assert result["scores"].values == (0.0, 1.0, 2.0, 3.0)


def test_expand_gives_a_flat_graph(tmp_path, registry):
    flat, problems = expand(load(tmp_path, registry, outer=OUTER, block=BLOCK))
    assert problems == []
    assert list(flat.nodes) == ["load", "block/score", "block/keep", "total"]
    assert str(flat.nodes["total"].inputs["values"]) == "$block/keep"
    assert flat.nodes["block/keep"].inputs["ratio"] == 1.0


def test_a_default_of_the_block_is_used(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER.replace(", ratio: 1.0", ""), block=BLOCK)
    assert graph.run()["total"] == 5.0


def test_a_pipeline_input_goes_through_a_block(tmp_path, registry):
    outer = OUTER.replace("nodes:", "inputs:\n  share: {type: float, default: 0.25}\nnodes:").replace(
        "1.0", "$inputs.share"
    )
    graph = load(tmp_path, registry, outer=outer, block=BLOCK)
    assert graph.problems() == []
    assert (graph.run()["total"], graph.run(sets={"share": 1.0})["total"]) == (3.0, 6.0)


def test_blocks_in_blocks_in_another_folder(tmp_path, registry):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "block.yaml").write_text(
        "format: 1\ninputs:\n  picture: {type: Picture}\nnodes:\n"
        "  inner: {type: ../inner.yaml, inputs: {picture: $inputs.picture}}\n"
        "outputs: {kept: $inner.kept, scores: $inner.scores}\n"
    )
    outer = OUTER.replace("./block.yaml", "parts/block.yaml").replace(", ratio: 1.0", "")
    graph = load(tmp_path, registry, outer=outer, inner=BLOCK)
    assert graph.problems() == []
    assert list(graph.run().timings) == ["load", "block/inner/score", "block/inner/keep", "total"]


def test_a_block_may_hand_its_input_through(tmp_path, registry):
    block = "format: 1\ninputs:\n  picture: {type: Picture}\noutputs: {same: $inputs.picture}\n"
    outer = "format: 1\nnodes:\n  l: {type: Load}\n  b: {type: ./block.yaml, inputs: {picture: $l}}\noutputs: {x: $b}\n"
    graph = load(tmp_path, registry, outer=outer, block=block)
    assert graph.problems() == []
    assert graph.run()["x"].pixels == (0, 1, 2, 3)


def test_problems_inside_a_block_name_its_line_and_carry_the_outer_place(tmp_path, registry):
    block = BLOCK.replace("scores: $score, ratio", "scores: $scor, ratio").replace("type: Score", "typ: Score")
    problems = errors(load(tmp_path, registry, outer=OUTER, block=block))
    assert {(problem.node, problem.line) for problem in problems} == {("block", 4)}
    assert [(problem.code, problem.message.partition(": ")[0]) for problem in problems] == [
        ("unknown-key", "block.yaml:6"), ("bad-structure", "block.yaml:6"), ("unknown-node", "block.yaml:7"),
    ]  # fmt: skip


def test_the_interface_of_a_block_is_checked(tmp_path, registry):
    outer = OUTER.replace("picture: $load, ratio: 1.0", "pictur: $load, ratio: half").replace(
        "$block.kept", "$block.kep"
    )
    found = {
        (problem.code, problem.input): problem for problem in errors(load(tmp_path, registry, outer=outer, block=BLOCK))
    }
    assert set(found) == {
        ("unknown-input", "pictur"), ("missing-input", "picture"), ("bad-value", "ratio"), ("unknown-output", "values"),
    }  # fmt: skip
    assert found["unknown-input", "pictur"].hint == "did you mean 'picture'?"
    assert found["unknown-output", "values"].hint == "did you mean 'kept'?"


def test_several_outputs_need_a_name(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER.replace("$block.kept", "$block"), block=BLOCK)
    assert [problem.code for problem in errors(graph)] == ["ambiguous-output"]


def test_types_are_checked_across_the_border(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER.replace("picture: $load", "picture: $total"), block=BLOCK)
    assert "type-mismatch" in {problem.code for problem in errors(graph)}


@pytest.mark.parametrize(
    "kind",
    [
        "/etc/block.yaml",
        "https://example.org/block.yaml",
        "./block.txt",
        "C:/block.yaml",
        "~/block.yaml",
        "a\\\\b.yaml",
    ],
)
def test_only_relative_yaml_files_are_blocks(kind, tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER.replace("./block.yaml", f'"{kind}"'), block=BLOCK)
    assert [(problem.code, problem.line) for problem in errors(graph)] == [("bad-subgraph", 4)]


def test_a_block_that_is_missing_or_broken(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER)
    [problem] = errors(graph)
    assert problem.line == 4
    assert "No such file" in problem.message
    (tmp_path / "block.yaml").write_text("a: [")
    [problem] = errors(graph)
    assert (problem.code, problem.line) == ("syntax", 4)
    assert problem.message.startswith("block.yaml:")


@pytest.mark.parametrize("files", [1, 2, 3])
def test_files_that_include_each_other_are_refused(files, tmp_path, registry):
    for index in range(files):
        text = f"format: 1\nnodes:\n  b: {{type: ./f{(index + 1) % files}.yaml}}\noutputs: {{b: $b}}\n"
        (tmp_path / f"f{index}.yaml").write_text(text)
    problem = errors(Graph.load(tmp_path / "f0.yaml", registry))[0]
    assert (problem.code, problem.line) == ("bad-subgraph", 3)
    assert "include each other" in problem.message


def test_blocks_that_include_each_other_below_the_pipeline(tmp_path, registry):
    text = "format: 1\nnodes:\n  b: {type: ./NEXT.yaml}\noutputs: {b: $b}\n"
    files = {name: text.replace("NEXT", next_) for name, next_ in (("outer", "a"), ("a", "c"), ("c", "a"))}
    [problem] = errors(load(tmp_path, registry, **files))
    assert "include each other: a.yaml -> c.yaml -> a.yaml" in problem.message


def test_nesting_deeper_than_eight_is_refused(tmp_path, registry):
    for index in range(10):
        (tmp_path / f"f{index}.yaml").write_text(
            f"format: 1\nnodes:\n  b: {{type: ./f{index + 1}.yaml}}\noutputs: {{b: $b}}\n"
        )
    (tmp_path / "f10.yaml").write_text("format: 1\nnodes:\n  b: {type: Load}\noutputs: {b: $b}\n")
    assert [problem.code for problem in errors(Graph.load(tmp_path / "f0.yaml", registry))] == ["bad-subgraph"]
    assert errors(Graph.load(tmp_path / "f2.yaml", registry)) == []


def test_blocks_that_multiply_are_stopped(tmp_path, registry):
    for index in range(8):
        rows = "".join(f"  b{i}: {{type: ./f{index + 1}.yaml}}\n" for i in range(10))
        (tmp_path / f"f{index}.yaml").write_text(f"format: 1\nnodes:\n{rows}outputs: {{b: $b0}}\n")
    (tmp_path / "f8.yaml").write_text("format: 1\nnodes:\n  b: {type: Load}\noutputs: {b: $b}\n")
    assert "bad-subgraph" in {problem.code for problem in errors(Graph.load(tmp_path / "f0.yaml", registry))}


def test_many_inclusions_of_a_large_block_are_stopped_early_and_each_file_is_parsed_once(
    tmp_path, registry, monkeypatch
):
    parsed: list[str] = []
    monkeypatch.setattr(
        "fopru_graph.graph.check.expand.read_text",
        lambda model, text, path: parsed.append(path) or read_text(model, text, path),
    )
    rows = "".join(f"  n{i}: {{type: Load}}\n" for i in range(1000))
    block = f"format: 1\nnodes:\n{rows}outputs: {{x: $n0}}\n"
    outer = "".join(f"  b{i}: {{type: ./block.yaml}}\n" for i in range(200))
    graph = load(tmp_path, registry, outer=f"format: 1\nnodes:\n{outer}outputs: {{x: $b0}}\n", block=block)
    flat, problems = expand(graph)
    [problem] = problems
    assert (problem.code, problem.node) == ("bad-subgraph", "b9")
    assert "more than 10000 nodes" in problem.message
    assert parsed == ["block.yaml"]
    assert len(flat.nodes) == 9000


def test_an_unused_block_is_one_warning(tmp_path, registry):
    outer = OUTER.replace("  total:", "  spare: {type: ./two.yaml}\n  total:")
    two = "format: 1\nnodes:\n  a: {type: Load}\n  b: {type: Load}\noutputs: {x: $a}\n"
    problems = load(tmp_path, registry, outer=outer, block=BLOCK, two=two).problems()
    assert [(problem.code, problem.node, problem.line) for problem in problems] == [("unused-node", "spare", 5)]


@pytest.mark.parametrize("wrapped", ["[$inputs.v, $inputs.v, $inputs.v, $inputs.v]", "{a: [$inputs.v, $inputs.v]}"])
def test_values_that_multiply_from_block_to_block_are_stopped(wrapped, tmp_path, registry):
    """Billion laughs through sub-graphs: every block hands on its input several times."""
    block = f"format: 1\ninputs:\n  v: {{type: json}}\nnodes:\n  n: {{type: Echo, inputs: {{value: {wrapped}}}}}\n"
    nested = block + "  b: {type: ./NEXT.yaml, inputs: {v: [" + ", ".join([wrapped] * 8) + "]}}\n"
    for index in range(7):
        (tmp_path / f"f{index}.yaml").write_text(nested.replace("NEXT", f"f{index + 1}") + "outputs: {x: $n}\n")
    (tmp_path / "f7.yaml").write_text(block + "outputs: {x: $n}\n")
    outer = "format: 1\nnodes:\n  b: {type: ./f0.yaml, inputs: {v: [1, 2]}}\noutputs: {x: $b}\n"
    assert {problem.code for problem in errors(load(tmp_path, registry, outer=outer))} == {"too-many-values"}


@pytest.mark.parametrize("given", ["[$b{0}, $b{0}]", "[$b{0}]"])
def test_values_that_grow_along_a_chain_of_blocks_are_stopped(given, tmp_path, registry):
    block = "format: 1\ninputs:\n  v: {type: json}\noutputs: {same: $inputs.v}\n"
    rows = "".join(f"  b{i + 1}: {{type: ./block.yaml, inputs: {{v: {given.format(i)}}}}}\n" for i in range(200))
    rows += "  n: {type: Echo, inputs: {value: $b200}}\n"
    outer = f"format: 1\nnodes:\n  b0: {{type: Load}}\n{rows}outputs: {{n: $n}}\n"
    assert {problem.code for problem in errors(load(tmp_path, registry, outer=outer, block=block))} == {
        "too-many-values"
    }


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_only_regular_files_are_blocks(kind, tmp_path, registry):
    """Opening a pipe would wait for a writer for ever."""
    make = {"device": lambda path: path.symlink_to("/dev/null"), "pipe": os.mkfifo, "folder": Path.mkdir}[kind]
    make(tmp_path / "block.yaml")
    [problem] = errors(load(tmp_path, registry, outer=OUTER))
    assert (problem.code, problem.line) == ("no-file", 4)
    assert "no regular file" in problem.message


def test_keys_do_not_depend_on_the_block(tmp_path, registry):
    result = load(tmp_path, registry, outer=OUTER, block=BLOCK).run()
    flat = Graph("flat", registry=registry)
    score = flat.Score(picture=flat.Load(size=4))
    flat.output("total", flat.Total(values=flat.Keep(scores=score, ratio=1.0)))
    assert flat.run().record.nodes["total"]["key"] == result.record.nodes["total"]["key"]


def test_a_record_with_blocks_is_replayed_without_the_files(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER, block=BLOCK)
    result = graph.run()
    for path in tmp_path.iterdir():
        path.unlink()
    again = Graph.from_record(result.record, registry).run()
    assert again["total"] == result["total"]
    assert {name: node["key"] for name, node in again.record.nodes.items()} == {
        name: node["key"] for name, node in result.record.nodes.items()
    }


def test_a_block_in_a_graph_without_a_file(registry):
    graph = Graph("g", registry=registry)
    graph.output("x", graph.add("./block.yaml", "b"))
    assert errors(graph)[0].code == "bad-subgraph"


def test_a_block_that_feeds_itself_is_a_cycle(tmp_path, registry):
    block = "format: 1\ninputs:\n  picture: {type: Picture}\noutputs: {same: $inputs.picture}\n"
    outer = "format: 1\nnodes:\n  b: {type: ./block.yaml, inputs: {picture: $b}}\noutputs: {x: $b}\n"
    assert {problem.code for problem in errors(load(tmp_path, registry, outer=outer, block=block))} == {"cycle"}


def test_a_list_of_references_handed_through_a_block_feeds_a_node_but_is_no_output(tmp_path, registry):
    block = "format: 1\ninputs:\n  values: {type: json}\noutputs: {same: $inputs.values}\n"
    outer = (
        "format: 1\nnodes:\n  l: {type: Load}\n  b: {type: ./block.yaml, inputs: {values: [$l, $l]}}\n"
        "  g: {type: Gather, inputs: {pictures: $b}}\noutputs: {g: $g}\n"
    )
    assert load(tmp_path, registry, outer=outer, block=block).run()["g"] == 2
    graph = load(tmp_path, registry, outer=outer.replace("g: $g", "g: $g, b: $b"), block=block)
    assert [(problem.code, problem.input) for problem in errors(graph)] == [("bad-reference", "b")]


# -- inputs of nodes in sub-graphs ------------------------------------------------------------------------------------


def nested(folder: Path, registry: Registry) -> Graph:
    middle = (
        "format: 1\ninputs:\n  picture: {type: Picture}\nnodes:\n"
        "  inner: {type: ./block.yaml, inputs: {picture: $inputs.picture}}\noutputs: {kept: $inner.kept}\n"
    )
    outer = OUTER.replace("./block.yaml", "./middle.yaml")
    outer = outer.replace(", ratio: 1.0", "").replace(", scores: $block.scores", "")
    return load(folder, registry, outer=outer, middle=middle, block=BLOCK)


def test_an_input_of_a_node_in_a_sub_graph_can_be_set_wherever_the_node_stands(tmp_path, registry):
    graph = nested(tmp_path, registry)
    assert graph.run()["total"] == 5.0
    assert graph.run(sets={"block/inner/keep.ratio": 1.0})["total"] == 6.0
    assert graph.run(sets={"block/inner/score.scale": 2.0})["total"] == 10.0
    assert graph.run(sets={"block/inner.ratio": 0.25})["total"] == 3.0  # an input of the inner block
    graph.set("block/inner/keep.ratio", 1.0)
    assert graph.written("block/inner/keep.ratio") == 1.0
    assert graph.nodes["block"].inputs["inner/keep.ratio"] == 1.0
    assert Graph.loads(graph.dumps(), registry) == graph
    again = Graph.from_record(graph.run().record, registry)
    assert again.run()["total"] == 6.0
    assert graph.of_type("Keep") == ["block/inner/keep"]


def test_a_link_can_be_set_in_a_sub_graph(tmp_path, registry):
    graph = load(tmp_path, registry, outer=OUTER, block=BLOCK)
    graph.nodes["block"].inputs["keep.ratio"] = graph.Add(a=0.25, b=0.25)._as_ref()
    assert graph.problems() == []
    assert graph.run()["total"] == 5.0


def test_what_is_set_in_a_sub_graph_is_judged(tmp_path, registry):
    def codes(target: str, value: object) -> list[tuple[str, str | None]]:
        graph = nested(tmp_path, registry)
        graph.set(target, value)
        return [(problem.code, problem.hint) for problem in errors(graph)]

    assert codes("block/inner/kep.ratio", 1.0) == [("unknown-node", "did you mean 'keep'?")]
    assert codes("block/iner/keep.ratio", 1.0) == [("unknown-node", "did you mean 'inner'?")]
    assert codes("block/inner/keep.ratoi", 1.0) == [("unknown-input", "did you mean 'ratio'?")]
    assert [code for code, _ in codes("block/inner/keep.ratio", 7)] == ["out-of-range"]
    with pytest.raises(ValueError, match="no node 'blok/inner'"):
        nested(tmp_path, registry).set("blok/inner.ratio", 1.0)


def test_a_flat_graph_has_no_sub_graphs_and_runs_alike(tmp_path, registry):
    graph = nested(tmp_path, registry)
    flat = graph.flat()
    flat.set("block/inner/keep.ratio", 1.0)
    assert flat.run()["total"] == 6.0 and graph.run()["total"] == 5.0
