"""Pipelines from ComfyUI's JSON: those that were written, with what was changed, and clear words on the rest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fopru_graph.comfy.header import with_header
from fopru_graph.comfy.prompt import encode, prompt_of
from fopru_graph.comfy.reading import MAX_BYTES, read_json
from fopru_graph.errors import Caution
from fopru_graph.graph import Executor, Graph, PipelineError, Ref, Registry
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.shipped import shipped_pipelines
from tests.comfy.pipelines import whole

RECORDED = Path(__file__).parent / "recorded" / "prompt_1.58.1.json"
REGISTRY = Registry.default()
SHOWN = {"model": "demo", "video": "demo:street-sign"}  # of the inputs without a default


def shipped(name: str) -> Graph:
    graph = Graph.load(name, REGISTRY)
    for key in [key for key in SHOWN if key in graph.inputs]:
        if "demo" not in str(graph.inputs[key].default):
            graph.set(key, SHOWN[key])
    return graph


def read(prompt: Any, file: str | None = None) -> Graph:
    return read_json(json.dumps(prompt).encode(), file, REGISTRY)


def looks_alike(graph: Graph, prompt: dict[str, Any]) -> bool:
    """Whether a pipeline has the nodes of a prompt, whatever it calls them."""
    now = encode(expand(graph)[0])
    kinds = sorted(node["class_type"] for node in now.values())
    return kinds == sorted(node["class_type"] for node in prompt.values())


@pytest.fixture
def graph(tmp_path):
    return whole(tmp_path)


@pytest.fixture
def prompt(graph):
    return with_header(prompt_of(graph), graph)


@pytest.mark.parametrize("name", [name for name in shipped_pipelines() if "video" not in Graph.load(name).inputs])
def test_every_pipeline_that_ships_comes_back_the_same(name, tmp_path):
    graph = shipped(name)
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(with_header(prompt_of(graph), graph)))
    back = Graph.load(file, REGISTRY)
    assert back == graph and back.dumps() == graph.dumps()


@pytest.mark.parametrize("name", ["fopru_fastv", "vscan", "downsample", "baseline"])
def test_without_its_header_it_runs_the_same_nodes(name):
    graph = shipped(name)
    flat = read(prompt_of(graph))
    plans = [Executor(REGISTRY).plan(pipeline) for pipeline in (graph, flat)]
    keys = [sorted(step.key for step in plan.steps.values()) for plan in plans]
    assert keys[0] == keys[1]
    assert list(flat.outputs) == list(graph.outputs)


def test_a_pipeline_comes_back_with_its_sub_graph_inputs_comments_and_positions(graph, prompt, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "whole.json"
    file.write_text(json.dumps(prompt), encoding="utf-8")
    back = Graph.load(file)
    assert back == graph
    assert back.dumps() == graph.dumps()
    assert [problem.line for problem in back.problems()] == [None]  # a line of the header is in no file
    assert prompt_of(back) == prompt_of(graph)


def test_a_header_holds_no_folder(prompt, tmp_path):
    assert str(tmp_path) not in json.dumps(prompt)


def test_the_body_that_the_canvas_posts_is_read_with_the_header_of_its_workflow(graph, prompt):
    header = prompt["model"]["_meta"].pop("fopru_graph")
    body = {
        "client_id": "x",
        "prompt": prompt,
        "extra_data": {"extra_pnginfo": {"workflow": {"extra": {"fopru_graph": header}}}},
    }
    assert read(body) == graph
    assert read({"prompt": prompt}) != graph


# -- changes on the canvas --------------------------------------------------------------------------------------------


def changed(prompt: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> Graph:
    prompt = copy.deepcopy(prompt)
    change(prompt)
    graph = read(prompt)
    assert looks_alike(graph, {key: node for key, node in prompt.items() if node["class_type"].startswith("Fopru")})
    return graph


def test_a_value_of_an_input_that_all_its_nodes_agree_on_is_the_inputs(graph, prompt):
    def change(prompt):
        prompt["sign:prune"]["inputs"]["ratio"] = prompt["first"]["inputs"]["ratio"] = 0.75

    graph.set("ratio", 0.75)
    assert changed(prompt, change) == graph


def test_a_value_of_an_input_that_its_nodes_do_not_agree_on_is_the_nodes(graph, prompt):
    graph.set("first.ratio", 0.75)
    assert changed(prompt, lambda prompt: prompt["first"]["inputs"].update(ratio=0.75)) == graph


def test_a_value_inside_a_sub_graph_is_set_there(graph, prompt):
    graph.set("sign/prune.over", "image")
    assert changed(prompt, lambda prompt: prompt["sign:prune"]["inputs"].update(over="image")) == graph


def test_a_text_that_begins_with_a_dollar_stays_a_text(graph, prompt):
    graph.set("prompt", "$model")
    assert changed(prompt, lambda prompt: prompt["generate"]["inputs"].update(prompt="$model")) == graph


def test_a_node_that_is_led_around_is_disabled(graph, prompt):
    def change(prompt):
        del prompt["first"]
        prompt["generate"]["inputs"]["pruners.pruner0"] = prompt["generate"]["inputs"].pop("pruners.pruner1")

    graph.set("first.enabled", False)
    assert changed(prompt, change) == graph


def test_a_disabled_node_that_is_on_the_canvas_is_enabled(graph, prompt):
    def change(prompt):
        prompt["reorder"] = {"class_type": "FopruReorder", "inputs": {"selection": ["sign:prune", 0]}}
        prompt["project"]["inputs"]["selection"] = ["reorder", 0]

    graph.set("reorder.enabled", True)
    assert changed(prompt, change) == graph


def test_a_node_that_is_gone_is_removed(graph, prompt):
    graph.remove("save")
    assert changed(prompt, lambda prompt: prompt.pop("save")) == graph


def test_a_sub_graph_that_is_gone_takes_what_read_it_along(graph, prompt):
    def change(prompt):
        for name in ("sign:encode", "sign:significance", "sign:prune", "project"):
            del prompt[name]
        del prompt["generate"]["inputs"]["tokens"]

    for name in ("sign", "project", "reorder"):
        graph.remove(name)
    graph.set("generate.tokens", None)
    del graph.outputs["kept"]
    back = changed(prompt, change)
    assert back == graph and {problem.severity for problem in back.problems()} == {"warning"}


def test_a_new_node_is_called_after_its_type_and_linked_into_the_sub_graph(graph, prompt):
    def change(prompt):
        inputs = {"features": ["sign:encode", 0], "seed": 3}
        prompt["12"] = {"class_type": "FopruRandomScore", "inputs": inputs}
        prompt["sign:prune"]["inputs"]["significance"] = ["12", 0]

    graph.RandomScore(features=Ref("sign", "features"), seed=3)
    graph.set("sign/prune.significance", Ref("random_score"))
    assert changed(prompt, change) == graph


def test_a_node_that_replaces_another_is_what_the_sub_graph_reads(prompt):
    def change(prompt):
        prompt["image"]["_meta"] = prompt["model"]["_meta"]  # the header
        prompt["other"] = prompt.pop("model")
        for node in prompt.values():
            if "model" in node["inputs"]:
                node["inputs"]["model"] = ["other", 0]

    back = changed(prompt, change)
    assert back.nodes["sign"].inputs["model"] == Ref("other") and "model" not in back.nodes
    assert list(back.inputs) == ["image", "prompt", "ratio", "spare"]
    assert {problem.severity for problem in back.problems()} == {"warning"}


def test_a_change_that_no_sub_graph_can_hold_puts_its_nodes_in_its_place(graph, prompt):
    def change(prompt):
        inputs = {"features": ["sign:encode", 0], "seed": 3}
        prompt["sign:significance"] = {"class_type": "FopruRandomScore", "inputs": inputs}

    back = changed(prompt, change)
    assert list(back.nodes)[2:5] == ["sign_encode", "sign_significance", "sign_prune"]
    assert back.nodes["sign_prune"].inputs == {
        "significance": Ref("sign_significance"),
        "ratio": Ref("inputs", "ratio"),
    }
    assert back.nodes["model"].comment == "the demo" and back.outputs["kept"].ref == Ref("sign_prune")
    assert not [problem for problem in back.problems() if problem.severity == "error"]


def test_a_header_that_cannot_be_read_leaves_the_nodes_with_a_warning(prompt):
    prompt["model"]["_meta"]["fopru_graph"]["pipeline"] = "format: 9"
    with pytest.warns(Caution, match="its nodes are read alone"):
        back = read(prompt)
    assert "sign_prune" in back.nodes and list(back.outputs) == ["text"]


# -- prompts of others ------------------------------------------------------------------------------------------------


def test_a_prompt_that_the_canvas_saved_runs():
    graph = Graph.load(RECORDED)
    assert list(graph.nodes)[:3] == ["model", "image", "fastv"]  # the order of the file
    assert graph.nodes["encode"].inputs == {"model": Ref("model"), "image": Ref("image")}  # no defaults
    assert graph.run(to="text")["text"] == "stop"


def test_nodes_of_comfyui_are_followed():
    nodes = json.loads(RECORDED.read_text())
    nodes["1"] = {"class_type": "LoadImage", "inputs": {"image": "sign.png [input]", "upload": "image"}}
    nodes["2"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "who ?"}}
    nodes["3"] = {"class_type": "PrimitiveFloat", "inputs": {"value": 0.125}}
    nodes["4"] = {"class_type": "Reroute", "inputs": {"": ["encode", 0]}}
    nodes["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["generate", 0]}}
    nodes["6"] = {
        "class_type": "FopruPictures",
        "inputs": {"pictures.picture0": ["1", 0], "pictures.picture1": ["image", 0]},
    }
    nodes["encode"]["inputs"]["image"] = ["6", 0]
    nodes["generate"]["inputs"]["prompt"] = ["2", 0]
    nodes["prune"]["inputs"]["ratio"] = ["3", 0]
    nodes["significance"]["inputs"]["features"] = ["4", 0]
    graph = read(nodes)
    assert graph.nodes["load_image"].inputs == {"path": "sign.png"}
    assert graph.nodes["encode"].inputs["image"] == [Ref("load_image"), Ref("image")]
    assert graph.nodes["generate"].inputs["prompt"] == "who ?" and graph.nodes["prune"].inputs["ratio"] == 0.125
    assert graph.nodes["significance"].inputs["features"] == Ref("encode")
    assert len(graph.nodes) == len(json.loads(RECORDED.read_text())) + 1


def test_numbered_nodes_are_called_after_their_types():
    nodes = {
        "7": {"class_type": "FopruLoadImage", "inputs": {"path": "demo:street-sign"}},
        "9:3": {"class_type": "FopruLoadImage", "inputs": {"path": "demo:street-sign"}},
        "inputs": {"class_type": "FopruDownsample", "inputs": {"image": ["9:3", 0]}},
        "host:x": {"class_type": "FopruDownsample", "inputs": {"image": ["7", 0]}},
    }
    graph = read(nodes)
    assert list(graph.nodes) == ["load_image", "load_image_2", "inputs_2", "host_x"]
    assert list(graph.outputs) == ["inputs_2", "host_x"]
    assert graph.problems() == []


# The node, what it or its inputs become, the input that is told of, and words.
BROKEN: list[tuple[str, Any, str | None, str]] = [
    ("prune", {"class_type": "FopruRankPrunes", "inputs": {}}, None, "did you mean 'FopruRankPrune'"),
    ("prune", {"class_type": "KSampler", "inputs": {}}, None, "there is no node type 'KSampler' here"),
    ("prune", 3, None, "a node of a prompt has a class_type"),
    ("prune", {"ratoi": 1}, "ratoi", "did you mean 'ratio'"),
    ("prune", {"ratio": 7}, "ratio", "must be less than or equal to 1"),
    ("prune", {"over": "til"}, "over", "did you mean 'tile'"),
    ("prune", {"over": ["tile", "image"]}, "over", "a list is a link there"),
    ("prune", {"significance": ["significant", 0]}, "significance", "which there is not"),
    ("prune", {"significance": ["generate", 2]}, "significance", "which has 0 (text), 1"),
    ("prune", {"significance": 0.5}, "significance", "is a link, but is 0.5"),
    ("generate", {"pruners.prune9": ["fastv", 0]}, "pruners.prune9", "no input"),
    ("generate", {"stop": "[1"}, "stop", "is no JSON"),
    ("generate", {"seed": 2**70}, "seed", "64 bits"),
]


@pytest.mark.parametrize(("node", "becomes", "key", "words"), BROKEN)
def test_what_is_wrong_is_told_once_at_its_node_and_input(node, becomes, key, words):
    nodes = json.loads(RECORDED.read_text())
    if key is None:
        nodes[node] = becomes
    else:
        nodes[node]["inputs"] |= becomes
    with pytest.raises(PipelineError) as caught:
        read(nodes)
    found = [problem for problem in caught.value.problems if problem.node == node]
    assert [problem.input for problem in found] == [key]
    assert words in found[0].text()


def test_everything_that_is_wrong_is_told_at_once():
    nodes = json.loads(RECORDED.read_text())
    nodes["prune"]["inputs"] |= {"ratoi": 1, "ratio": 7, "over": "til"}
    with pytest.raises(PipelineError) as caught:
        read(nodes)
    assert sorted(str(problem.input) for problem in caught.value.problems) == ["over", "ratio", "ratoi"]


def test_a_cycle_is_a_problem_of_the_pipeline():
    nodes = {name: {"class_type": "FopruDownsample", "inputs": {"image": [other, 0]}} for name, other in ("ab", "ba")}
    assert "cycle" in [problem.code for problem in read(nodes).problems()]
    nodes["b"]["class_type"] = nodes["a"]["class_type"] = "Reroute"
    nodes["c"] = {"class_type": "FopruDownsample", "inputs": {"image": ["a", 0]}}
    with pytest.raises(PipelineError, match="wait for each other: a -> b -> a"):
        read(nodes)


def test_a_chain_of_reroutes_has_an_end():
    nodes = {str(n): {"class_type": "Reroute", "inputs": {"": [str(n + 1), 0]}} for n in range(5000)}
    nodes["a"] = {"class_type": "FopruDownsample", "inputs": {"image": ["0", 0]}}
    with pytest.raises(PipelineError, match="more than 100 nodes that only pass on"):
        read(nodes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "this JSON is no pipeline: it can be the run.json of an earlier run, a prompt"),
        (b"[1]", "Save \\(API\\), or a workflow of its canvas"),
        (b'{"a": 1}', "this JSON is no pipeline"),
        (b'{"a": {"class_type": "x", "inputs": {"y": NaN}}}', "NaN is no JSON number"),
        (b'{"a": {"class_type": "x"}, "a": {}}', "the key 'a' is there twice"),
        (b'{"a": \n', "line 2 is no JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"format": 2, "pipeline": ""}', "this is no run's record: it has format 2"),
        (b'{"format": 1, "pipeline": "", "status": "done"}', "this is no run's record: .*missing"),
        (
            b'{"a": {"class_type": "FopruSwitch", "inputs": {"then": ["b", 0]}}, "b": {"class_type": "PrimitiveInt",'
            b'"inputs": {"value": 99999999999999999999}}}',
            "a.then .*64 bits",
        ),
        (b'{"a": {"class_type": "x", "inputs": {}}' + b" " * MAX_BYTES + b"}", "more than 8388608 bytes"),
        (b'{"a": {"class_type": "x", "inputs": {"v": ' + b"9" * 5000 + b"}}}", "Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_in_one_sentence(content, words):
    with pytest.raises(PipelineError, match=words) as caught:
        read_json(content, "x.json", REGISTRY)
    assert len(caught.value.problems) == 1


def test_a_pipeline_may_be_written_as_json():
    text = '{"format": 1, "nodes": {"m": {"type": "LoadModel"}}, "outputs": {"m": "$m"}}'
    assert read_json(text.encode(), None, REGISTRY) == Graph.loads(text)


def test_the_record_of_a_run_is_read_by_its_content(tmp_path):
    graph = Graph.loads(
        "format: 1\nnodes:\n  i: {type: LoadImage, inputs: {path: demo:street-sign}}\noutputs: {i: $i}\n"
    )
    graph.run().record.save(tmp_path / "renamed.json")
    back = Graph.load(tmp_path / "renamed.json")
    assert back == graph and back.recorded is not None


# -- anything at all --------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["$model", "$$", "none", "null", "1", "[]"])
SETTINGS = {
    "prompt": TEXTS.filter(str.strip),
    "ratio": st.floats(0.01, 1),
    "generate.seed": st.integers(0, 2**53 - 1),
    "generate.temperature": st.integers(0, 2) | st.floats(0, 2),
    "generate.top_p": st.none() | st.floats(0.01, 1),
    "generate.stop": st.none() | st.lists(TEXTS.filter(bool), max_size=2),
    "generate.system": TEXTS,
    "generate.positions": st.sampled_from([None, "original", "rebased"]),
    "generate.logprobs": st.booleans(),
    "second.layer": st.integers(1, 9) | st.floats(0.01, 0.99),
    "sign/prune.tokens": st.none() | st.integers(1, 99),
    "sign/significance.layer": st.none() | st.integers(-9, 9),
    "reorder.enabled": st.booleans(),
}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets=st.fixed_dictionaries({}, optional=SETTINGS))
def test_whatever_is_set_comes_back_with_the_header_and_in_the_nodes_without_it(tmp_path_factory, sets):
    graph = whole(tmp_path_factory.getbasetemp())
    for target, value in sets.items():
        graph.set(target, value)
    prompt = prompt_of(graph)
    assert read(with_header(prompt, graph)) == graph
    again = prompt_of(read(prompt))
    assert [values_of(node) for node in again.values()] == [values_of(node) for node in prompt.values()]


def values_of(node: dict[str, Any]) -> dict[str, Any]:
    """The values of a node's widgets, in which no number is a text or a truth."""
    return {key: (type(value) is bool, value) for key, value in node["inputs"].items() if not isinstance(value, list)}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6) | st.sampled_from(
        ["prune", "encode", "FopruPictures", "Reroute", "LoadImage", "PrimitiveInt", "sign:x", "fopru_graph"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    | st.tuples(st.sampled_from(["encode", "prune", "1"]), st.integers(-1, 2)).map(list),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    graph = whole(tmp_path_factory.mktemp("fuzz"))
    return [json.loads(RECORDED.read_text()), json.loads(json.dumps(with_header(prompt_of(graph), graph)))]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::fopru_graph.errors.Caution")
def test_any_change_gives_a_pipeline_or_located_problems(seeds, data):
    nodes = copy.deepcopy(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = nodes
        key = data.draw(st.sampled_from(sorted(place)))
        while isinstance(place[key], dict) and place[key] and data.draw(st.integers(0, 3)):
            place, key = place[key], data.draw(st.sampled_from(sorted(place[key])))
        if data.draw(st.booleans()) and len(place) > 1:
            del place[key]
        else:
            place[key] = data.draw(VALUES)
    try:
        graph = read(nodes)
    except PipelineError as error:
        told = error.problems
    else:
        told = graph.problems()
        assert Graph.loads(graph.dumps()) == graph
    assert all(problem.message for problem in told)
