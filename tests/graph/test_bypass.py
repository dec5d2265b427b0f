"""Disabled nodes: what passes on in their place, what is lost, and what is refused."""

from __future__ import annotations

import re

import jsonschema
import pytest
import yaml

from fopru_graph.drawing import draw
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.graph import Executor, Graph, Node, PipelineError, Ref, Registry, RunRecord, node, plan
from fopru_graph.graph.yaml.schema import pipeline_schema
from fopru_graph.measure.pipelines import at_ratio


class Thing:
    pass


@node(category="toy")
class Source(Node):
    def run(self) -> Thing:
        return Thing()


@node(category="toy")
class Change(Node):
    """One input of its output's type, and one of another."""

    def run(self, thing: Thing, text: str = "a") -> Thing:
        return thing


@node(category="toy")
class Join(Node):
    def run(self, first: Thing, second: Thing | None = None) -> Thing:
        return first


@node(category="toy")
class Take(Node):
    def run(self, needed: Thing, spare: Thing | None = None, many: list[Thing] | None = None) -> str:
        return "taken"


@pytest.fixture
def registry():
    registry = Registry()
    registry.add(Source, Change, Join, Take)
    return registry


TEXT = """format: 1
nodes:
  source: {type: Source}
  other:  {type: Source}
  change: {type: Change, enabled: false, inputs: {thing: $source, text: b}}
  again:  {type: Change, enabled: false, inputs: {thing: $change}, comment: twice}
  take:   {type: Take, inputs: {needed: $again, many: [$again, $other]}}
outputs: {taken: $take, thing: $again}
"""


def loads(text: str, registry: Registry) -> Graph:
    return Graph.loads(text, registry)


def taken(graph: Graph) -> dict:
    return dict(plan(graph).flat.nodes["take"].inputs)


def test_its_input_of_the_same_type_passes_on_through_several(registry):
    graph = loads(TEXT, registry)
    assert graph.dumps() == TEXT and graph.problems() == []
    assert taken(graph) == {"needed": Ref("source"), "many": [Ref("source"), Ref("other")]}
    result = graph.run()
    assert isinstance(result["thing"], Thing) and set(result.timings) == {"source", "other", "take"}
    explained = Executor(registry).explain(graph)
    assert (explained["again"]["action"], explained["again"]["why"]) == ("skip", "it is disabled")
    enabled = loads(TEXT.replace(", enabled: false", ""), registry)
    assert enabled != graph and plan(enabled).steps["take"].key != plan(graph).steps["take"].key
    for name in ("change", "again"):
        enabled.set(f"{name}.enabled", False)
    assert enabled == graph and enabled.written("again.enabled") is False


def test_what_has_nothing_to_pass_on_leaves_lists_and_defaults(registry):
    text = TEXT.replace("needed: $again", "needed: $other, spare: $source").replace(
        "type: Source}", "type: Source }", 1
    )
    graph = loads(text.replace("source: {type: Source }", "source: {type: Source, enabled: false}"), registry)
    assert taken(graph) == {"needed": Ref("other"), "many": [Ref("other")]}
    warnings = [problem.text() for problem in graph.problems()]
    assert warnings == [
        "line:7: warning: take.spare is its default, since $source is disabled and has nothing of that type to pass on",
        "line:8: outputs.thing: warning: the output is empty, since $again is disabled and has nothing of that type to "
        "pass on",
    ]
    assert graph.run()["thing"] is None


def test_what_is_needed_is_refused_with_its_line_and_the_way_out(registry):
    graph = loads(TEXT.replace("source: {type: Source}", "source: {type: Source, enabled: false}"), registry)
    (problem,) = [problem for problem in graph.problems() if problem.severity == "error"]
    assert (problem.code, problem.line, problem.hint) == ("disabled", 7, "disable take as well")
    assert problem.message == "take.needed reads $again, which is disabled and has nothing of that type to pass on"
    with pytest.raises(PipelineError, match="change is disabled, so it has no output"):
        loads(TEXT, registry).run(to="change")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Change, enabled: false, inputs: {thing: $source, text: b}", "Join, enabled: false, inputs: {first: $source, "
         "second: $other}", "change is disabled, but which input passes on as $change is not clear: first, second fit"),
        ("{thing: $source, text: b}", "{thing: $again}", "the disabled nodes wait for each other: again -> change"),
        ("thing: $again}", "thing: $again.out}", "$again.out is no output of Change"),
        ("thing: $source, text", "thing: $sauce, text", "$sauce refers to a node that does not exist"),
        ("enabled: false, inputs: {thing: $source", "enabled: no, inputs: {thing: $source", "must be true or false"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_located_sentence(registry, old, new, said):
    assert old in TEXT
    problems = loads(TEXT.replace(old, new), registry).problems()
    assert any(said in problem.message and problem.line for problem in problems), problems


def test_checks_behind_see_what_passes_on(registry):
    """A text is no Thing, whether it comes through a disabled node or not."""
    graph = loads(TEXT.replace("thing: $source, text: b", "thing: $late"), registry)
    graph.add("Take", "late", needed=Ref("source"))
    messages = [problem.message for problem in graph.problems()]
    assert messages == [f"take.{key} expects Thing, but $late.output is str" for key in ("needed", "many[0]")]


def test_a_switch_is_true_or_false(registry):
    graph = loads(TEXT, registry)
    with pytest.raises(PipelineError, match="change.enabled must be true or false, but is 'no'"):
        graph.set("change.enabled", "no")

    @node(category="toy")
    class Own(Node):
        def run(self, enabled: str = "a") -> str:
            return enabled

    registry.add(Own)
    graph.add("Own", "own")
    graph.set("own.enabled", "b")  # an input of that name is what is set
    assert graph.node("own").enabled and graph.node("own").inputs == {"enabled": "b"}


def test_a_sub_graph_and_nodes_in_it_can_be_disabled():
    graph = Graph()
    graph.output("text", graph.add("fopru_fastv", "ask").text)
    graph.set("ask/fastv.enabled", False)
    assert "fastv.enabled: false" in graph.dumps() and Graph.loads(graph.dumps()) == graph
    assert plan(graph).flat.nodes["ask/generate"].inputs["pruners"] == []
    graph.set("ask.enabled", False)
    assert not any(entry.enabled for entry in graph.flat().nodes.values())
    assert [problem.severity for problem in graph.problems()] == ["warning"]
    graph.node("ask").inputs["fastv.enabled"] = "off"
    assert "must be true or false" in graph.problems()[0].message


def test_the_ablations_of_fopru_and_fastv_need_no_other_file(tmp_path):
    def counts(*without: str, ratio: float | None = None) -> tuple[int, int]:
        graph = Graph.load("fopru_fastv")
        for name in without:
            graph.set(f"{name}.enabled", False)
        result = (graph if ratio is None else at_ratio(graph, ratio)).run(to="generate", out=tmp_path)
        layers = result["generation"].visual_per_layer
        again = Graph.from_record(RunRecord(**result.record.to_json())).run(to="generate", out=tmp_path)
        assert again["generation"].token_ids == result["generation"].token_ids
        return layers[0], layers[-1]

    assert counts() == (128, 64)
    assert counts("fastv") == counts("fastv", ratio=0.5) == (128, 128)
    assert counts("fastv", ratio=0.25) == (64, 64)  # the stage that is left keeps all of it
    assert counts("prune", "reorder") == (256, 128)
    assert counts("reorder") == (128, 64)
    assert counts("prune", "reorder", "fastv") == (256, 256)


def test_a_result_without_a_node_has_a_folder_of_its_own():
    graph = Graph.load("fopru_fastv")
    (whole,) = configurations_of(graph, (0.25,))
    graph.set("fastv.enabled", False)
    (less,) = configurations_of(graph, (0.25,), {"fastv.enabled": False})
    assert less.folder("x") != whole.folder("x") and less.settings == {"fastv.enabled": False, "prune.ratio": 0.25}


def test_the_schema_knows_the_switch(registry):
    validator = jsonschema.Draft7Validator(pipeline_schema(registry))
    assert validator.is_valid(yaml.safe_load(TEXT))
    assert not validator.is_valid(yaml.safe_load(TEXT.replace("enabled: false", "enabled: 0", 1)))


def test_a_disabled_node_is_drawn_dashed(registry):
    graph = loads(TEXT, registry)
    drawn = draw(graph, "svg", {"change": "done"})
    assert len(re.findall(r'class="node c\d+ disabled"', drawn)) == 2 and ">disabled</text>" in drawn
    assert draw(graph, "dot").count("dashed") == 2
    assert "missing" in draw(graph, "mermaid") and "disabled" in draw(graph, "mermaid")
    assert "dashed" not in draw(loads(TEXT.replace(", enabled: false", ""), registry), "dot")
