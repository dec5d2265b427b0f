"""Workflows as the frontend sends them: links that are followed, values by name and by position, and what is wrong."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.reading import read_json
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.comfy.workflow import workflow_of
from fopru_graph.graph import Graph, PipelineError, Registry

RECORDED = Path(__file__).parent / "recorded"
REGISTRY = Registry.default()
PLANS = plans(REGISTRY)
RANK = workflow_of(Graph.load("fopru_rank", REGISTRY))


@pytest.fixture
def rank() -> dict:
    return copy.deepcopy(RANK)


def node(workflow: dict, name: str) -> dict:
    return next(node for node in workflow["nodes"] if node["id"] == name)


def sent(workflow: dict) -> dict:
    return prompt_of_workflow(workflow, PLANS)[0]


def test_the_workflow_that_a_real_frontend_saved_is_the_prompt_that_it_sent():
    workflow = json.loads((RECORDED / "workflow_1.58.1.json").read_text())
    prompt, positions = prompt_of_workflow(workflow, PLANS)
    assert prompt == json.loads((RECORDED / "prompt_1.58.1.json").read_text())
    assert positions["generate"] == (2099.552734375, 130)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", ["subgraph", "blueprint"])
def test_a_subgraph_that_a_real_frontend_saved_is_the_prompt_that_it_sent(name: str, named: bool):
    recorded = json.loads((RECORDED / f"{name}_1.58.1.json").read_text())
    for each in [] if named else recorded["workflow"]["nodes"]:
        each.pop("widgets_values_named", None)
    assert sent(recorded["workflow"]) == recorded["prompt"]


def test_values_by_position_are_read_where_there_are_no_names(rank: dict):
    wanted = sent(rank)
    for each in rank["nodes"]:
        del each["widgets_values_named"]
    assert sent(rank) == wanted


def test_the_control_behind_a_seed_is_skipped(rank: dict):
    generate = node(rank, "generate")
    del generate["widgets_values_named"]
    names = [slot.name for slot in PLANS["FopruLLMGenerate"].widgets]
    generate["widgets_values"].insert(names.index("seed") + 1, "randomize")
    assert sent(rank)["generate"] == sent(RANK)["generate"]


def test_a_bypassed_node_hands_on_the_input_of_its_output_type(rank: dict):
    node(rank, "reorder")["mode"] = 4
    prompt = sent(rank)
    assert "reorder" not in prompt and prompt["project"]["inputs"]["selection"] == ["prune", 0]


def test_a_bypassed_node_without_such_an_input_hands_on_nothing(rank: dict):
    node(rank, "prune")["mode"] = 4
    assert "selection" not in sent(rank)["reorder"]["inputs"]


def test_a_muted_node_is_not_there(rank: dict):
    node(rank, "reorder")["mode"] = 2
    prompt = sent(rank)
    assert "reorder" not in prompt and "selection" not in prompt["project"]["inputs"]


def test_a_bypassed_node_is_disabled_in_the_pipeline(rank: dict):
    node(rank, "reorder")["mode"] = 4
    graph = read_json(json.dumps(rank).encode(), None, REGISTRY)
    assert not graph.nodes["reorder"].enabled and graph.ui is None
    assert node(workflow_of(graph), "reorder")["mode"] == 4


def test_reroutes_are_followed(rank: dict):
    link = next(link for link in rank["links"] if link[1] == "prune")
    dots = {
        "inputs": [{"name": "", "type": "*", "link": link[0]}],
        "outputs": [{"name": "", "type": "*", "links": [99]}],
    }
    rank["nodes"].append({"id": 7, "type": "Reroute", "pos": [0, 0], "mode": 0} | dots)
    rank["links"].append([99, 7, 0, link[3], link[4], "*"])
    node(rank, link[3])["inputs"][link[4]]["link"] = 99
    link[3:5] = [7, 0]
    assert sent(rank) == sent(RANK)


def test_a_value_of_the_frontends_own_primitive_is_a_value(rank: dict):
    rank["nodes"].append({"id": 8, "type": "PrimitiveNode", "widgets_values": [0.5, "fixed"], "outputs": []})
    rank["links"].append([98, 8, 0, "prune", 3, "FLOAT"])
    socket = next(socket for socket in node(rank, "prune")["inputs"] if socket["name"] == "ratio")
    socket["link"] = 98
    assert sent(rank)["prune"]["inputs"]["ratio"] == 0.5 and "8" not in sent(rank)


def test_links_may_be_objects(rank: dict):
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    rank["links"] = [dict(zip(names, link, strict=True)) for link in rank["links"]]
    assert sent(rank) == sent(RANK)


def wrong(workflow: dict) -> str:
    with pytest.raises(PipelineError) as caught:
        read_json(json.dumps(workflow).encode(), "w.json", REGISTRY)
    return str(caught.value)


def test_what_is_wrong_is_told_with_the_node(rank: dict):
    broken = copy.deepcopy(rank)
    node(broken, "project")["inputs"][0]["link"] = 77
    assert "the link 77 of node project is not in the file" in wrong(broken)
    broken = copy.deepcopy(rank)
    broken["links"][0][1] = "nobody"
    assert "comes from node nobody, which is not there" in wrong(broken)
    broken = copy.deepcopy(rank)
    broken["links"][0] = [1, 2]
    assert "this is no link of a workflow: [1, 2]" in wrong(broken)
    broken = copy.deepcopy(rank)
    broken["nodes"][1]["id"] = broken["nodes"][0]["id"]
    assert "two nodes have the id model" in wrong(broken)
    broken = copy.deepcopy(rank)
    del broken["nodes"][0]["id"]
    assert "a node of the workflow has no id" in wrong(broken)


def test_links_that_go_in_a_circle_are_told():
    dots = {"type": "Reroute", "inputs": [{"name": "", "link": 1}], "outputs": []}
    reader = {"id": "p", "type": "FopruProject", "inputs": [{"name": "model", "link": 1}]}
    workflow = {"nodes": [{"id": 1} | dots, reader], "links": [[1, 1, 0, 1, 0, "*"]]}
    assert "the links to node p go round in a circle" in wrong(workflow)


def test_a_subgraph_inside_of_itself_is_told():
    inner = {"id": "s", "nodes": [{"id": 1, "type": "s"}], "links": []}
    workflow = {"nodes": [{"id": 1, "type": "s"}], "links": [], "definitions": {"subgraphs": [inner]}}
    assert "subgraphs are nested more than" in wrong(workflow)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-30, 30)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "prune", "Reroute"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "link", "0"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_in_a_file_it_is_read_or_told(data: st.DataObject):
    workflow = copy.deepcopy(RANK)
    for _ in range(data.draw(st.integers(1, 3))):
        at: object = workflow
        while isinstance(at, dict | list) and at:
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.integers(0, 3)) == 0:
                at[key] = data.draw(ANY)
                break
            at = at[key]
    with contextlib.suppress(PipelineError):  # any other exception is a fault
        read_json(json.dumps(workflow).encode(), None, REGISTRY)
