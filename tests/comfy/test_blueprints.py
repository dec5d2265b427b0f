"""Blueprints: what the search offers, what stands on the node, and the prompt that one becomes on a canvas."""

from __future__ import annotations

import copy
import json

import pytest

from fopru_graph.comfy.blueprints import blueprints
from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.graph import Graph, Registry
from fopru_graph.graph.shipped import shipped_pipelines

REGISTRY = Registry.default()
PLANS = plans(REGISTRY)
FOUND = blueprints(REGISTRY)
LOADERS = {"FopruLoadModel", "FopruLoadImage", "FopruLoadVideo"}


def inside(blueprint: dict) -> dict:
    """What the frontend sends of its node, by the names of the pipeline's nodes."""
    prompt, _ = prompt_of_workflow(blueprint, PLANS)
    return {name.partition(":")[2]: node for name, node in prompt.items()}


def test_each_shipped_pipeline_has_a_name_of_its_own_that_is_spelt_as_in_its_description():
    assert len(FOUND) == len(shipped_pipelines())
    assert {"FoPru rank (FoPru)", "FoPru FastV (FoPru)", "DivPrune (FoPru)", "VidCom2 (FoPru)"} <= FOUND.keys()


@pytest.mark.parametrize("name", sorted(FOUND))
def test_the_canvas_holds_nothing_but_the_node_of_the_one_subgraph(name: str):
    (node,) = FOUND[name]["nodes"]
    (subgraph,) = FOUND[name]["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and subgraph["name"] == node["title"] == name
    assert FOUND[name]["links"] == [] and all(each["link"] is None for each in node["inputs"])
    assert subgraph["category"] == "fopru"
    assert not LOADERS & {each["type"] for each in subgraph["nodes"]}
    for ends in ("inputs", "outputs"):
        assert [each["name"] for each in node[ends]] == [each["name"] for each in subgraph[ends]]
    assert {each["name"] for each in node["outputs"]} >= {"text", "picture"}


def test_the_node_has_sockets_for_model_and_picture_and_widgets_for_the_rest():
    (node,) = FOUND["FoPru FastV (FoPru)"]["nodes"]
    assert [(each["name"], each["type"]) for each in node["inputs"]] == [
        ("model", "FOPRU_MODEL_HANDLE"), ("image", "FOPRU_IMAGE,IMAGE,FOPRU_VIDEO"), ("prompt", "STRING"),
        ("ratio", "FLOAT"), ("max_new_tokens", "INT"),
    ]  # fmt: skip
    assert node["widgets_values"] == ["what does the text say ?", 0.25, 64]
    assert [each["name"] for each in node["inputs"] if "widget" in each] == ["prompt", "ratio", "max_new_tokens"]
    assert [each["name"] for each in node["outputs"]] == ["text", "picture", "generation"]


@pytest.mark.parametrize("name", ["fopru_fastv", "cdpruner", "baseline"])
def test_it_sends_what_the_pipeline_does_but_for_the_loaders(name: str):
    graph = Graph.load(name, REGISTRY)
    blueprint = next(each for each in FOUND.values() if each["nodes"][0]["id"] == name)
    wanted = {key: node for key, node in prompt_of(graph).items() if node["class_type"] not in LOADERS}
    for node in wanted.values():
        kept = {key: value for key, value in node["inputs"].items() if value not in (["model", 0], ["image", 0])}
        node["inputs"] = {
            key: [f"{name}:{value[0]}", value[1]] if isinstance(value, list) else value for key, value in kept.items()
        }
    assert inside(blueprint) == wanted


@pytest.mark.parametrize("named", [True, False])
def test_a_widget_of_the_node_is_the_value_of_all_that_read_it(named: bool):
    blueprint = copy.deepcopy(FOUND["CDPruner (FoPru)"])
    (node,) = blueprint["nodes"]
    node["widgets_values"][0] = node["widgets_values_named"]["prompt"] = "how many ?"
    if not named:
        del node["widgets_values_named"]
    sent = inside(blueprint)
    assert sent["question"]["inputs"]["prompt"] == sent["generate"]["inputs"]["prompt"] == "how many ?"


def test_files_are_the_same_each_time():
    assert json.dumps(blueprints(REGISTRY)) == json.dumps(FOUND)
