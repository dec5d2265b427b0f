"""Validation: every problem at once, each in its place. The graph shapes are those that other engines got wrong."""

from __future__ import annotations

import json

import pytest

from fopru_graph.graph import Graph, PipelineError, Problem, Ref, Registry, validate
from tests.graph import toys

TEN_MISTAKES = """\
format: 1
nmae: ten mistakes
inputs:
  size: {type: int, default: four}
nodes:
  load:   {type: Load, inputs: {sise: 3}}
  photo:  {type: TakePhto}
  score:  {type: Score, inputs: {picture: $laod}}
  halves: {type: Split, inputs: {picture: $load}}
  first:  {type: Score, inputs: {picture: $halves}}
  keep:   {type: Keep, inputs: {scores: $load, ratio: 1.5, order: bset}}
  total:  {type: Total}
  a:      {type: Add, inputs: {a: $b}}
  b:      {type: Add, inputs: {a: $a.sum}}
  text:   {type: Text, inputs: {text: $5}}
outputs: {total: $total, score: $score, keep: $keep, first: $first, photo: $photo, a: $a, text: $text}
"""


def errors(graph: Graph) -> list[Problem]:
    return [problem for problem in graph.problems() if problem.severity == "error"]


def places(graph: Graph) -> list[tuple[str, str | None, str | None]]:
    return [(problem.code, problem.node, problem.input) for problem in graph.problems()]


def nodes(text: str, registry: Registry, outputs: str = "{}") -> Graph:
    return Graph.loads(f"format: 1\nnodes:\n{text}outputs: {outputs}\n", registry)


def test_ten_mistakes_are_ten_problems_on_their_lines(registry):
    graph = Graph.loads(TEN_MISTAKES, registry)
    assert [(problem.line, problem.code, problem.node, problem.input) for problem in errors(graph)] == [
        (2, "unknown-key", None, None),
        (4, "bad-value", "inputs", "size"),
        (6, "unknown-input", "load", "sise"),
        (7, "unknown-type", "photo", None),
        (8, "unknown-node", "score", "picture"),
        (10, "ambiguous-output", "first", "picture"),
        (11, "type-mismatch", "keep", "scores"),
        (11, "out-of-range", "keep", "ratio"),
        (11, "not-a-choice", "keep", "order"),
        (12, "missing-input", "total", "values"),
        (13, "cycle", "a", None),
        (14, "unknown-output", "b", "a"),
        (15, "bad-reference", "text", "text"),
    ]


def test_hints_and_both_sides_of_a_clash(registry):
    found = {(problem.code, problem.node): problem for problem in Graph.loads(TEN_MISTAKES, registry).problems()}
    assert found["type-mismatch", "keep"].message == "keep.scores expects Scores, but $load.output is Picture"
    assert found["type-mismatch", "keep"].hint == "use $score"
    assert found["unknown-type", "photo"].hint == "did you mean 'TakePhoto'?"
    assert found["unknown-node", "score"].hint == "did you mean 'load'?"
    assert found["ambiguous-output", "first"].hint == "write one of $halves.low, $halves.high"
    assert found["not-a-choice", "keep"].hint == "did you mean 'best'?"
    assert found["missing-input", "total"].hint == "use $keep"
    assert "a -> b -> a" in found["cycle", "a"].message
    assert found["unknown-key", None].hint == "did you mean 'name'?"


def test_a_type_that_no_node_here_makes_is_hinted_by_node_types(registry):
    graph = nodes("  s: {type: Score}\n", registry, "{s: $s}")
    assert errors(graph)[0].hint == "Picture comes from Load, Split, TakePhoto"


def test_a_hint_never_makes_a_cycle(registry):
    graph = nodes(
        "  a: {type: Score, inputs: {picture: $t}}\n  s: {type: Score, inputs: {picture: $l}}\n"
        "  l: {type: Echo, inputs: {value: $a}}\n  t: {type: Text}\n  k: {type: Split, inputs: {picture: $l}}\n",
        registry,
        "{k: $k.low, s: $s}",
    )
    assert errors(graph)[0].hint == "Picture comes from Load, Split, TakePhoto"


def test_a_problem_as_json_and_as_text(registry):
    graph = nodes("  l: {type: Load, inputs: {size: 0}}\n", registry, "{l: $l}")
    [problem] = graph.problems()
    assert list(problem.to_json()) == ["code", "severity", "node", "input", "line", "message", "hint"]
    assert json.loads(json.dumps(problem.to_json()))["line"] == 3
    text = "a.yaml:3: l.size must be greater than or equal to 1, but is 0 (size: pixels)"
    assert str(PipelineError([problem], "a.yaml")) == text
    other = Problem("check", "something", node="a", input="b", line=2, hint="do it")
    assert other.text("f.yaml") == "f.yaml:2: a.b: something (do it)"


def test_a_bad_link_hides_nothing_upstream(registry):
    graph = nodes(
        "  l: {type: Load, inputs: {size: 0}}\n  k: {type: Keep, inputs: {scores: $l}}\n"
        "  t: {type: Total, inputs: {values: $k, x: 1}}\n", registry, "{t: $t.nope}",
    )  # fmt: skip
    assert {problem.code for problem in errors(graph)} == {
        "out-of-range",
        "type-mismatch",
        "unknown-input",
        "unknown-output",
    }


def test_links_of_a_node_of_unknown_type_are_checked(registry):
    graph = nodes(
        "  x: {type: Nope, inputs: {a: $y, b: [$z]}}\n  s: {type: Score, inputs: {picture: $x}}\n", registry, "{s: $s}"
    )
    assert [problem.code for problem in errors(graph)] == ["unknown-type", "unknown-node", "unknown-node"]


def test_undeclared_inputs_are_refused_even_when_linked(registry):
    graph = nodes("  l: {type: Load}\n  s: {type: Score, inputs: {picture: $l, photo: $m}}\n", registry, "{s: $s}")
    assert [problem.code for problem in errors(graph)] == ["unknown-input", "unknown-node"]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ("{a: $w}", None), ("{a: $f}", "type-mismatch"), ("{a: 1}", None), ("{a: true}", "bad-value"),
        ('{a: "1"}', "bad-value"), ("{a: $t}", "type-mismatch"), ("{a: [$w]}", "type-mismatch"),
        ("{a: null}", "bad-value"),
    ],
)  # fmt: skip
def test_ints_fit_floats_and_bools_fit_no_number(inputs, code, registry):
    graph = nodes(
        f"  w: {{type: Whole}}\n  f: {{type: Flag}}\n  t: {{type: Text}}\n  x: {{type: Add, inputs: {inputs}}}\n",
        registry,
        "{x: $x}",
    )
    assert [problem.code for problem in errors(graph)] == ([code] if code else [])


def test_floats_do_not_fit_ints(registry):
    graph = nodes("  a: {type: Add, inputs: {a: 1}}\n  w: {type: Whole, inputs: {value: $a}}\n", registry, "{w: $w}")
    assert [problem.code for problem in errors(graph)] == ["type-mismatch"]


def test_a_subclass_fits_its_base_and_not_the_other_way(registry):
    assert not errors(nodes("  p: {type: TakePhoto}\n  s: {type: Score, inputs: {picture: $p}}\n", registry, "{s: $s}"))


def test_lists_may_mix_references_and_each_element_is_checked(registry):
    text = "  l: {type: Load}\n  p: {type: TakePhoto}\n  s: {type: Score, inputs: {picture: $l}}\n"
    good = nodes(text + "  g: {type: Gather, inputs: {pictures: [$l, $p, $l]}}\n", registry, "{g: $g, s: $s}")
    assert not good.problems()
    bad = nodes(text + "  g: {type: Gather, inputs: {pictures: [$l, $s, 3]}}\n", registry, "{g: $g}")
    assert [(problem.code, problem.message.split()[0]) for problem in errors(bad)] == [
        ("type-mismatch", "g.pictures[1]"), ("bad-value", "g.pictures"),
    ]  # fmt: skip


def test_text_and_list_of_texts(registry):
    text = "  t: {type: Text, inputs: {text: a}}\n"
    for inputs in ("$t", "[$t, b]", "a", "[a, b]"):
        graph = nodes(text + f"  j: {{type: Join, inputs: {{texts: {inputs}}}}}\n", registry, "{j: $j, t: $t}")
        assert not graph.problems(), inputs
    assert errors(nodes(text + "  j: {type: Join, inputs: {texts: [$t, 3]}}\n", registry, "{j: $j}"))


def test_edge_to_itself_is_a_cycle(registry):
    [problem] = errors(nodes("  a: {type: Add, inputs: {a: $a}}\n", registry, "{a: $a}"))
    assert (problem.code, problem.message) == ("cycle", "the nodes wait for each other: a -> a")


def test_one_cycle_problem_a_component_with_a_shortest_path(registry):
    graph = nodes(
        "  a: {type: Add, inputs: {a: $c}}\n  b: {type: Add, inputs: {a: $a}}\n"
        "  c: {type: Add, inputs: {a: $b, b: $c}}\n"
        "  d: {type: Add, inputs: {a: $e}}\n  e: {type: Add, inputs: {a: $d}}\n", registry, "{a: $a, d: $d}",
    )  # fmt: skip
    assert [problem.message.partition(": ")[2] for problem in errors(graph)] == ["a -> b -> c -> a", "d -> e -> d"]


def test_a_long_cycle_and_a_long_chain(registry):
    rows = "".join(f"  n{i}: {{type: Add, inputs: {{a: $n{i - 1}}}}}\n" for i in range(1, 2000))
    chain = nodes("  n0: {type: Add, inputs: {a: 1}}\n" + rows, registry, "{n: $n1999}")
    assert chain.problems() == []
    cycle = nodes("  n0: {type: Add, inputs: {a: $n1999}}\n" + rows, registry, "{n: $n1999}")
    [problem] = errors(cycle)
    assert problem.code == "cycle"
    assert problem.message.count(" -> ") == 2000


def test_a_pipeline_without_outputs(registry):
    assert places(nodes("  l: {type: Load}\n", registry)) == [("no-outputs", None, None)]
    assert places(Graph.loads("format: 1\n", registry)) == [("no-outputs", None, None)]


def test_an_output_node_is_output_enough(registry):
    assert not nodes("  l: {type: Load}\n  s: {type: Show, inputs: {value: $l}}\n", registry).problems()


def test_unused_nodes_and_inputs_are_warnings(registry):
    graph = Graph.loads(
        "format: 1\ninputs:\n  x: {type: int, default: 1}\n"
        "nodes:\n  l: {type: Load}\n  m: {type: Load}\noutputs: {l: $l}\n",
        registry,
    )
    assert [(problem.code, problem.severity, problem.line) for problem in graph.problems()] == [
        ("unused-input", "warning", 3), ("unused-node", "warning", 6),
    ]  # fmt: skip
    assert graph.run()["l"].pixels == (0, 1, 2, 3)


def test_pipeline_inputs_are_checked_in_the_sockets_they_feed(graph):
    size = graph.input("size", "int", 3)
    graph.output("l", graph.Load(size=size))
    assert not graph.problems()
    graph.set("size", 100)
    [problem] = graph.problems()
    assert (problem.code, problem.node, problem.input) == ("out-of-range", "load", "size")
    assert "$inputs.size" in problem.message
    graph.set("size", "big")
    assert {(problem.code, problem.node) for problem in graph.problems()} == {
        ("bad-value", "inputs"),
        ("bad-value", "load"),
    }


def test_a_pipeline_input_without_default_is_wanted_by_a_run_only(graph):
    graph.output("l", graph.Load(size=graph.input("size", "int")))
    assert not graph.problems()
    with pytest.raises(PipelineError, match="inputs.size has no default"):
        graph.run()
    assert len(graph.run(sets={"size": 2})["l"].pixels) == 2
    bad = Graph("b", registry=graph.registry)
    bad.output("l", bad.Load(size=bad.input("size", "str")))
    assert [problem.code for problem in bad.problems()] == ["type-mismatch"]


def test_unknown_pipeline_input(graph):
    graph.input("size", "int", 3)
    graph.output("l", graph.Load(size=Ref("inputs", "sise")))
    problem = next(problem for problem in graph.problems() if problem.severity == "error")
    assert (problem.code, problem.hint) == ("unknown-pipeline-input", "did you mean 'size'?")


def test_unknown_declared_type_lists_the_choices(graph):
    graph.output("l", graph.Load(size=graph.input("size", "number", 3)))
    [problem] = graph.problems()
    assert (problem.code, problem.node, problem.input) == ("bad-value", "inputs", "size")
    assert "list[str]" in (problem.hint or "")


def test_the_node_s_own_check(registry):
    [problem] = nodes("  e: {type: Even, inputs: {value: 3}}\n", registry, "{e: $e}").problems()
    assert (problem.code, problem.message, problem.line) == ("check", "value must be even, but is 3", 3)
    assert not nodes("  e: {type: Even, inputs: {value: 4}}\n", registry, "{e: $e}").problems()
    linked = nodes("  w: {type: Whole}\n  e: {type: Even, inputs: {value: $w}}\n", registry, "{e: $e}")
    assert not linked.problems()


def test_validating_runs_nothing(registry, calls):
    validate(Graph.loads(TEN_MISTAKES, registry))
    assert calls == []


def test_an_unknown_type_s_hint_and_an_empty_registry():
    [problem] = [p for p in nodes("  l: {type: Load}\n", Registry(), "{l: $l}").problems() if p.severity == "error"]
    assert (problem.code, problem.hint) == ("unknown-type", "no node types are loaded")
    assert toys.Load.spec.type == "Load"


def test_a_check_is_asked_beside_other_nodes_problems_but_not_with_bad_inputs(registry):
    text = "  a: {type: Even, inputs: {value: 3}}\n  b: {type: Load, inputs: {size: 0}}\n"
    text += "  c: {type: Even, inputs: {value: x}}\n"
    graph = nodes(text, registry, "{a: $a, b: $b, c: $c}")
    assert [problem.code for problem in errors(graph)] == ["check", "out-of-range", "bad-value"]
