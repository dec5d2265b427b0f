from __future__ import annotations

import copy
import pickle

import pytest

from fopru_graph.graph import MISSING, Graph, PipelineError, Ref, Registry
from fopru_graph.graph.values import INVALID
from tests.graph import toys


def codes(error: pytest.ExceptionInfo[PipelineError]) -> list[str]:
    return [problem.code for problem in error.value.problems]


def chain(graph: Graph) -> Graph:
    picture = graph.input("size", type="int", default=4)
    load = graph.add("Load", size=picture)
    graph.output("scores", graph.Score(picture=load, id="score"))
    return graph


def test_add_node_names_it_after_its_type(graph):
    names = [str(graph.add("Load")), str(graph.Load()), str(graph.add("Load", "mine")), str(graph.add("Load", id="x"))]
    assert names == ["$load", "$load_2", "$mine", "$x"]


def test_a_handle_stands_for_the_sole_output_or_names_one(graph):
    split = graph.Split(picture=graph.Load())
    low, high = graph.Score(picture=split.low, id="low"), graph.Score(picture=split["high"], id="high")
    assert graph.nodes["low"].inputs["picture"] == Ref("split", "low")
    assert graph.nodes["high"].inputs["picture"] == Ref("split", "high")
    assert graph.nodes["split"].inputs["picture"] == Ref("load")
    assert (str(low), str(high)) == ("$low", "$high")


def test_unknown_output_of_a_handle(graph):
    split = graph.Split(picture=graph.Load())
    with pytest.raises(PipelineError, match="no output 'lw' .did you mean 'low'"):
        _ = split.lw
    assert not hasattr(split, "lw")


def test_add_duplicate_node_is_refused(graph):
    graph.add("Load", "a")
    with pytest.raises(PipelineError) as caught:
        graph.add("Load", "a")
    assert codes(caught) == ["duplicate-id"]


def test_add_unknown_type_is_refused_with_a_hint(graph):
    with pytest.raises(PipelineError, match="no node type 'Scor' .did you mean 'Score'"):
        graph.add("Scor")
    with pytest.raises(AttributeError, match="did you mean 'Score'"):
        graph.Scor()


def test_add_unknown_input_is_refused_with_a_hint(graph):
    with pytest.raises(PipelineError, match="no input 'pictur' .did you mean 'picture'"):
        graph.add("Score", pictur=graph.Load())


@pytest.mark.parametrize("name", ["inputs", "2a", "a.b", "a/b", "", "ä b"])
def test_names_that_cannot_be_referred_to_are_refused(graph, name):
    if name:
        with pytest.raises(PipelineError) as caught:
            graph.add("Load", name)
        assert codes(caught) == ["bad-name"]
    with pytest.raises(PipelineError):
        graph.add("Load", name or "-")


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), 2**64, {1: 2}, "\ud800", {"a": {1, 2}}])
def test_values_that_a_file_cannot_hold_are_refused(graph, value):
    with pytest.raises(PipelineError) as caught:
        graph.add("Echo", value=value)
    assert codes(caught) == ["bad-value"]


def test_update_node_by_set(graph):
    graph.add("Load", "a", size=3)
    graph.set("a.size", 5)
    assert graph.nodes["a"].inputs["size"] == 5
    with pytest.raises(PipelineError, match="did you mean 'size'"):
        graph.set("a.sise", 5)
    with pytest.raises(PipelineError, match="no node 'b'"):
        graph.set("b.size", 5)


def test_set_a_pipeline_input(graph):
    chain(graph)
    graph.set("size", 9)
    assert len(graph.run()["scores"].values) == 9
    with pytest.raises(PipelineError, match="did you mean 'size'"):
        graph.set("sizes", 1)


def test_set_moves_the_link(graph):
    first, second = graph.add("Load", "first"), graph.add("Load", "second")
    graph.add("Score", "score", picture=first)
    graph.set("score.picture", second)
    assert set(graph.links().edges()) == {("second", "score")}


def test_delete_node_leaves_a_reported_dangling_reference(graph):
    chain(graph)
    graph.remove("load")
    assert "load" not in graph.nodes
    assert [problem.code for problem in graph.problems() if problem.severity == "error"] == ["unknown-node"]
    with pytest.raises(PipelineError):
        graph.remove("load")
    graph.add("Load", "load")
    assert not [problem for problem in graph.problems() if problem.severity == "error"]


def test_nodes_keep_the_order_in_which_they_were_added_though_referred_to_before(registry):
    graph = Graph.loads("format: 1\nnodes:\n  b: {type: Score, inputs: {picture: $a}}\n  a: {type: Load}\n", registry)
    assert list(graph.nodes) == ["b", "a"]


def test_networkx_view_has_paths_and_outputs_on_its_edges(graph):
    split = graph.Split(picture=graph.Load(), id="split")
    graph.Gather(pictures=[split.low, split.high], id="gather")
    edges = sorted(
        (source, reader, data["input"], data["output"]) for source, reader, data in graph.links().edges(data=True)
    )
    assert edges == [
        ("load", "split", "picture", None),
        ("split", "gather", "pictures[0]", "low"),
        ("split", "gather", "pictures[1]", "high"),
    ]


def test_equal_graphs_and_unequal_values(registry):
    def make(value):
        graph = Graph("g", registry=registry)
        graph.add("Echo", "e", value=value)
        return graph

    assert make([1, {"a": "b"}]) == make([1, {"a": "b"}])
    graphs = [make(value) for value in (1, 1.0, "1", True, None, [1], "$x", Ref("x"))]
    assert all((one == other) == (one is other) for one in graphs for other in graphs)


def test_a_copy_is_independent(graph):
    chain(graph)
    other = graph.copy()
    assert other == graph
    other.set("size", 7)
    other.add("Load", "more")
    other.set("score.scale", 2.0)
    assert graph.inputs["size"].default == 4
    assert "more" not in graph.nodes
    assert graph != other


def test_save_and_load(graph, tmp_path):
    chain(graph)
    graph.save(tmp_path / "a.yaml")
    loaded = Graph.load(tmp_path / "a.yaml", graph.registry)
    assert loaded == graph
    assert list(tmp_path.iterdir()) == [tmp_path / "a.yaml"]


def test_a_missing_file_is_a_pipeline_error(tmp_path):
    with pytest.raises(PipelineError, match="cannot read .*nope.yaml: No such file"):
        Graph.load(tmp_path / "nope.yaml")


def test_duplicate_pipeline_input_and_output_are_refused(graph):
    chain(graph)
    with pytest.raises(PipelineError):
        graph.input("size")
    with pytest.raises(PipelineError):
        graph.output("scores", Ref("score"))
    with pytest.raises(PipelineError, match="must be an output of a node"):
        graph.output("x", "score")  # type: ignore[arg-type]


def test_texts_given_in_python_are_texts(graph, calls):
    graph.output("text", graph.Text(text="$load"))
    assert graph.run()["text"] == "$load"
    assert Graph.loads(graph.dumps(), graph.registry).run()["text"] == "$load"


def test_registries_are_independent():
    registry = Registry()
    registry.add(toys.Load)
    assert list(registry.types()) == ["Load"]
    with pytest.raises(PipelineError):
        Graph(registry=registry).add("Score")


def test_the_deepest_value_that_can_be_built_can_be_read_again(graph):
    value: list = []
    for _ in range(55):
        value = [value]
    graph.output("x", graph.Echo(value=value))
    assert Graph.loads(graph.dumps(), graph.registry) == graph
    with pytest.raises(PipelineError, match="deeper than"):
        graph.set("echo.value", [[value]])


def test_a_sub_graph_is_named_after_its_file(graph):
    assert [str(graph.add(kind)) for kind in ("./score-block.yaml", "parts/2 x.yml")] == ["$score-block", "$_2_x"]


# -- copies and pickles -----------------------------------------------------------------------------------------------


def test_a_deep_copy_is_independent_and_runs(graph):
    chain(graph)
    assert len(graph.run()["scores"].values) == 4  # the memory of outputs, with its lock, is not copied
    other = copy.deepcopy(graph)
    assert other == graph
    other.set("size", 2)
    other.remove("score")
    assert len(graph.run()["scores"].values) == 4
    assert other.inputs["size"].default == 2


def test_a_pickled_graph_comes_back_equal_and_runs(graph):
    chain(graph)
    graph.input("free")
    graph.run(sets={"free": "x"})
    other = pickle.loads(pickle.dumps(graph))
    assert other == graph
    assert other.inputs["free"].default is MISSING
    assert other.registry is not graph.registry
    assert other.registry.find("Score") is toys.Score.spec
    assert len(other.run(sets={"free": "x"})["scores"].values) == 4


def test_a_graph_of_the_default_registry_can_be_pickled(tmp_path):
    graph = Graph.loads("format: 1\nnodes:\n  a: {type: SaveText, inputs: {text: hello}}\noutputs: {a: $a}\n")
    other = pickle.loads(pickle.dumps(graph))
    assert [problem.code for problem in other.problems()] == [problem.code for problem in graph.problems()]
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_a_copy_shares_the_registry_or_gets_another(graph):
    chain(graph)
    other = Registry()
    assert graph.copy().registry is graph.registry
    assert graph.copy(other).registry is other


def test_what_was_refused_stays_refused_in_a_copy(registry):
    graph = Graph.loads(
        "format: 1\nnodes:\n  a: {type: Echo, inputs: {value: $$$}}\n  b: {type: Echo, inputs: {value: $-}}\n", registry
    )
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.copy()):
        assert other.nodes["b"].inputs["value"] is INVALID
        assert other.problems() == graph.problems()
