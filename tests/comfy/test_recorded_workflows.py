"""A workflow that frontend 1.58.1 saved and exported, beside the prompt that it sent.

It was opened from `workflow_of`, and then changed in the page: a block that is there twice (the frontend numbers its
inner nodes anew), widgets of inner nodes shown on the subgraphs' nodes, one through two levels, reroutes of both kinds,
the frontend's own primitive, and a bypassed node.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.reading import read_json
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.graph import Graph, Registry

RECORDED = json.loads((Path(__file__).parent / "recorded" / "subgraphs_1.58.1.json").read_text(encoding="utf-8"))
PLANS = plans(Registry.default())
BOTH = pytest.mark.parametrize("kind", ["saved", "exported"])


def read(workflow: dict[str, Any]) -> Graph:
    return read_json(json.dumps(workflow).encode())


def without(value: Any, key: str) -> Any:
    """A copy without this key at any depth."""
    if isinstance(value, dict):
        return {name: without(part, key) for name, part in value.items() if name != key}
    return [without(part, key) for part in value] if isinstance(value, list) else value


def sockets_of_left(kind: str) -> list[str]:
    left = next(node for node in RECORDED[kind]["nodes"] if node["id"] == "left")
    return [socket["name"] for socket in left["inputs"]]


def test_the_recorded_files_hold_what_they_are_for():
    saved = RECORDED["saved"]
    assert sockets_of_left("saved") == ["model", "image", "together", "way", "how_many"]
    assert sockets_of_left("exported") == ["model", "image"]
    assert {"left:1", "left:2:4", "right:pick:prune"} < RECORDED["prompt"].keys()
    assert {node["type"] for node in saved["nodes"]} > {"Reroute", "PrimitiveNode"} and saved["extra"]["reroutes"]


@BOTH
def test_the_frontend_sent_what_is_read(kind: str):
    assert prompt_of_workflow(RECORDED[kind], PLANS)[0] == RECORDED["prompt"]


@BOTH
def test_widgets_of_subgraphs_are_read_by_position_too(kind: str):
    assert prompt_of_workflow(without(RECORDED[kind], "widgets_values_named"), PLANS)[0] == RECORDED["prompt"]


@BOTH
def test_the_pipeline_has_its_blocks_with_what_was_changed_in_them(kind: str):
    nodes = read(RECORDED[kind]).nodes
    assert nodes["left"].type == nodes["right"].type == "./block.yaml"
    changed = {"encode.together": True, "pick/significance.direction": "received", "pick/prune.tokens": 7}
    assert nodes["left"].inputs.items() > changed.items()
    assert "encode.together" not in nodes["right"].inputs
    assert nodes["first"].inputs["ratio"] == 0.75 and not nodes["reorder"].enabled


def test_numbered_nodes_without_a_header_go_by_their_titles():
    graph = read(without(RECORDED["saved"], "fopru_graph"))
    assert {"left_encode", "left_pick_prune", "right_encode", "model", "project"} < graph.nodes.keys()


def test_a_title_that_is_there_twice_is_no_name():
    workflow = copy.deepcopy(RECORDED["saved"])
    block = next(each for each in workflow["definitions"]["subgraphs"] if each["name"] == "left")
    block["nodes"].append(copy.deepcopy(block["nodes"][0]) | {"id": 77})
    found = prompt_of_workflow(workflow, PLANS, by_title=True)[0]
    assert {"left:1", "left:77"} < found.keys() and "left:encode" not in found
