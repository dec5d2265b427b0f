"""Workflows that users have stored stay readable: widgets are only ever appended."""

from __future__ import annotations

import json

import pytest

from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.graph import Registry
from fopru_graph.graph.shipped import shipped_pipelines
from tools import comfy_widgets
from tools.comfy_widgets import HINT, RELEASED, main, moves, present, workflows

PLANS = plans(Registry.default())


def test_every_released_widget_is_where_it_was():
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert len(released) >= 49
    told = moves(released, present())
    assert not told, "\n".join((*told, HINT))


def test_every_shipped_pipeline_has_a_released_workflow():
    assert workflows().keys() >= shipped_pipelines().keys()


@pytest.mark.parametrize("pipeline", sorted(workflows()))
def test_a_released_workflow_has_the_same_values_by_position_and_by_name(pipeline: str):
    nodes = workflows()[pipeline]["nodes"]
    by_name = prompt_of_workflow({"nodes": nodes}, PLANS)[0]
    positions = [{key: value for key, value in node.items() if key != "widgets_values_named"} for node in nodes]
    by_position = prompt_of_workflow({"nodes": positions}, PLANS)[0]
    assert by_position == by_name
    for node in nodes:
        assert by_name[node["id"]]["inputs"] == node["widgets_values_named"], HINT
        if plan := PLANS.get(node["type"]):
            told = {
                slot.name: slot.problem(node["widgets_values_named"].get(slot.name))
                for slot in plan.widgets[: len(node["widgets_values"])]
            }
            assert not any(told.values()), told


@pytest.mark.parametrize(
    ("today", "told"),
    [
        (["ratio", "tokens", "over"], []),
        (["ratio", "tokens", "over", "new"], []),
        (["ratio", "over"], [
            "FopruKeep: widget 1 was released as tokens, which is gone",
            "FopruKeep: widget 2 was released as over, which is now 1",
        ]),
        (["ratio", "over", "tokens"], [
            "FopruKeep: widget 1 was released as tokens, which is now 2",
            "FopruKeep: widget 2 was released as over, which is now 1",
        ]),
        (["ratio", "tokens"], ["FopruKeep: widget 2 was released as over, which is gone"]),
    ],
)  # fmt: skip
def test_what_moved_is_told_with_node_and_position(today, told):
    assert moves({"FopruKeep": ["ratio", "tokens", "over"]}, {"FopruKeep": today}) == told


def test_a_node_that_is_gone_is_told():
    assert moves({"FopruKeep": []}, {}) == ["the node FopruKeep was released and is gone"]


def test_the_tool_notes_what_is_new_and_refuses_what_moved(tmp_path, monkeypatch, capsys):
    file = tmp_path / "widgets.json"
    monkeypatch.setattr(comfy_widgets, "RELEASED", file)
    monkeypatch.setattr(comfy_widgets, "WORKFLOWS", tmp_path / "workflows.jsonl")
    assert main() == 0
    noted = file.read_text(encoding="utf-8")
    assert json.loads(noted) == present()
    file.write_text(noted.replace('"ratio", "tokens"', '"tokens", "ratio"'), encoding="utf-8")
    moved = file.read_text(encoding="utf-8")
    assert main() == 1
    assert file.read_text(encoding="utf-8") == moved
    assert "FopruRankPrune: widget 0 was released as tokens, which is now 1" in capsys.readouterr().err
