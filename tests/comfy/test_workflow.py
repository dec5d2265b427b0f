"""Pipelines as workflows of the canvas: what is written, where it stands, and that reading gives the pipeline back."""

from __future__ import annotations

import itertools
import json

import pytest

from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.comfy.reading import read_json
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.comfy.workflow import with_primitives, workflow_of
from fopru_graph.graph import Graph, Registry
from fopru_graph.graph.shipped import shipped_pipelines
from tests.comfy.pipelines import whole

pytestmark = pytest.mark.filterwarnings("ignore:video.path is")  # no film lies in ComfyUI's folder
NAMES = sorted(shipped_pipelines())
REGISTRY = Registry.default()
TITLE = 30


def shipped(name: str) -> Graph:
    graph = Graph.load(name, REGISTRY)
    if "model" in graph.inputs and not isinstance(graph.inputs["model"].default, str):
        graph.set("model", "demo")
    if "video" in graph.inputs and not isinstance(graph.inputs["video"].default, str):
        graph.set("video", "film.gif")
    return graph


def read(workflow: dict, registry: Registry = REGISTRY) -> Graph:
    return read_json(json.dumps(workflow).encode(), None, registry)


def levels(workflow: dict) -> list[dict]:
    return [workflow, *workflow.get("definitions", {}).get("subgraphs", ())]


@pytest.mark.parametrize("name", NAMES)
def test_the_frontend_sends_of_a_shipped_pipeline_what_its_prompt_says(name: str):
    graph = shipped(name)
    prompt, _ = prompt_of_workflow(workflow_of(graph), plans(REGISTRY))
    assert prompt == with_primitives(prompt_of(graph), graph)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_pipeline_is_read_back_as_it_was(name: str):
    graph = shipped(name)
    assert read(workflow_of(graph)) == graph


@pytest.mark.parametrize("name", NAMES)
def test_nodes_stand_apart_and_what_is_read_stands_left(name: str):
    workflow = workflow_of(shipped(name))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for first, second in itertools.combinations(nodes.values(), 2):
        apart = [
            a["pos"][axis] + a["size"][axis] <= b["pos"][axis] - TITLE * axis
            for a, b in ((first, second), (second, first))
            for axis in (0, 1)
        ]
        assert any(apart), (first["id"], second["id"])
    for _, origin, _, target, _, _ in workflow["links"]:
        assert nodes[origin]["pos"][0] + nodes[origin]["size"][0] < nodes[target]["pos"][0]


def test_links_agree_with_the_sockets_at_both_ends(tmp_path):
    for level in levels(workflow_of(whole(tmp_path))):
        nodes = {node["id"]: node for node in level["nodes"]}
        for link in level["links"]:
            number, origin, slot, target, place, kind = link.values() if isinstance(link, dict) else link
            if origin in nodes:
                assert number in nodes[origin]["outputs"][slot]["links"]
                assert nodes[origin]["outputs"][slot]["type"] == kind
            else:
                assert number in level["inputs"][slot]["linkIds"] and level["inputs"][slot]["type"] == kind
            if target in nodes:
                assert nodes[target]["inputs"][place]["link"] == number
            else:
                assert number in level["outputs"][place]["linkIds"]


def test_a_sub_pipeline_is_a_subgraph_with_a_socket_for_each_thing_that_crosses_its_border(tmp_path):
    workflow = workflow_of(whole(tmp_path))
    (subgraph,) = workflow["definitions"]["subgraphs"]
    host = next(node for node in workflow["nodes"] if node["id"] == "sign")
    assert host["type"] == subgraph["id"] and subgraph["name"] == "sign"
    assert [node["id"] for node in subgraph["nodes"]] == ["encode", "significance", "prune"]
    assert [(each["name"], each["type"]) for each in subgraph["inputs"]] == [
        ("model", "FOPRU_MODEL_HANDLE"), ("image", "FOPRU_IMAGE"),
    ]  # fmt: skip
    assert [each["name"] for each in subgraph["outputs"]] == [each["name"] for each in host["outputs"]]
    assert len(host["inputs"]) == 2


def test_all_of_a_pipeline_comes_back_with_its_sub_pipeline(tmp_path):
    graph = whole(tmp_path)
    (tmp_path / "whole.json").write_text(json.dumps(workflow_of(graph)))
    assert read_json((tmp_path / "whole.json").read_bytes(), str(tmp_path / "whole.json"), REGISTRY) == graph


def test_files_are_the_same_each_time(tmp_path):
    assert json.dumps(workflow_of(whole(tmp_path))) == json.dumps(workflow_of(whole(tmp_path)))


def test_a_value_that_several_widgets_show_is_a_node():
    workflow = workflow_of(shipped("cdpruner"))
    node = next(node for node in workflow["nodes"] if node["id"] == "prompt")
    assert node["type"] == "PrimitiveStringMultiline" and node["widgets_values"] == ["what does the text say ?"]
    read_by = {target for _, origin, _, target, _, _ in workflow["links"] if origin == "prompt"}
    assert len(read_by) == 2
    node["widgets_values"] = ["how many ?"]
    node["widgets_values_named"] = {"value": "how many ?"}
    assert read(workflow).inputs["prompt"].default == "how many ?"


def shared(kind: str, default: str) -> Graph:
    """Two nodes that read the pipeline's ``x``."""
    slot = {"int": "tokens", "float": "ratio"}[kind]
    nodes = "\n".join(f"  {name}: {{type: FastVPrune, inputs: {{layer: 1, {slot}: $inputs.x}}}}" for name in "ab")
    inputs = f"inputs: {{x: {{type: {kind}, default: {default}}}}}"
    return Graph.loads(f"format: 1\nname: two\n{inputs}\nnodes:\n{nodes}\noutputs: {{a: $a, b: $b}}\n", REGISTRY)


def test_a_number_that_is_shared_stays_the_same_after_a_run():
    graph = shared("int", "7")
    workflow = workflow_of(graph)
    node = next(node for node in workflow["nodes"] if node["type"] == "PrimitiveInt")
    assert node["widgets_values"] == [7, "fixed"]
    assert prompt_of_workflow(workflow, plans(REGISTRY))[0]["x"]["inputs"] == {"value": 7}
    assert read(workflow) == graph


def test_a_fraction_is_not_shared_as_the_canvas_would_round_it():
    graph = shared("float", "0.25")
    workflow = workflow_of(graph)
    assert {node["type"] for node in workflow["nodes"]} == {"FopruFastVPrune"}
    assert read(workflow) == graph


def test_nodes_that_were_moved_are_moved_when_it_is_written_again():
    graph = shipped("fopru_rank")
    workflow = workflow_of(graph)
    node = next(node for node in workflow["nodes"] if node["id"] == "prune")
    node["pos"] = [5000, -20.5]
    moved = read(workflow)
    assert moved.ui == {"canvas": {"prune": [5000, -20.5]}}
    again = {node["id"]: node["pos"] for node in workflow_of(moved)["nodes"]}
    before = {node["id"]: node["pos"] for node in workflow_of(graph)["nodes"]}
    assert again == before | {"prune": [5000, -20.5]}
