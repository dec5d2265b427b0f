"""Workflows that users have stored stay readable: widgets are only ever appended."""

from __future__ import annotations

import json

import pytest

from tools import comfy_widgets
from tools.comfy_widgets import HINT, RELEASED, main, moves, present


def test_every_released_widget_is_where_it_was():
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert len(released) >= 49
    told = moves(released, present())
    assert not told, "\n".join((*told, HINT))


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
    assert main() == 0
    noted = file.read_text(encoding="utf-8")
    assert json.loads(noted) == present()
    file.write_text(noted.replace('"ratio", "tokens"', '"tokens", "ratio"'), encoding="utf-8")
    moved = file.read_text(encoding="utf-8")
    assert main() == 1
    assert file.read_text(encoding="utf-8") == moved
    assert "FopruRankPrune: widget 0 was released as tokens, which is now 1" in capsys.readouterr().err
