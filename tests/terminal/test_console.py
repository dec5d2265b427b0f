"""What a person sees in the terminal: streamed text on lines of its own, figures that read well."""

from __future__ import annotations

import pytest

from fopru_graph.graph import NodeFailed, NodeFinished, NodeStarted, NodeText, RunFinished
from fopru_graph.terminal.format import size
from fopru_graph.terminal.progress import RunDisplay


@pytest.mark.parametrize(
    "end", [NodeFinished("a", 1.0, False), NodeFailed("a", ValueError()), RunFinished("failed", 1.0)]
)
def test_streamed_text_ends_its_line_before_anything_else_is_shown(end, capsys):
    display = RunDisplay(stream_text=True)
    for event in (NodeStarted("a", "LLMGenerate"), NodeText("a", "two "), NodeText("a", "words [x]"), end):
        display(event)
    assert capsys.readouterr().out == "two words [x]\n"
    assert display.streamed == "two words [x]"
    display(RunFinished("done", 2.0))
    assert capsys.readouterr().out == ""


def test_nothing_is_streamed_where_json_is_wanted(capsys):
    display = RunDisplay(stream_text=False)
    for event in (NodeText("a", "words"), NodeFinished("a", 1.0, False)):
        display(event)
    assert capsys.readouterr().out == ""
    assert not display.streamed


@pytest.mark.parametrize(
    ("count", "shown"), [(None, "–"), (0, "0 B"), (1023, "1023 B"), (663552, "648.0 KiB"), (5 * 2**30, "5.00 GiB")]
)
def test_sizes(count, shown):
    assert size(count) == shown
