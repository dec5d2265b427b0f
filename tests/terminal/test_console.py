"""What a person sees in the terminal: streamed text on lines of its own, figures that read well."""

from __future__ import annotations

import pytest

from fopru_graph.graph import (
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    NodeText,
    Problem,
    RunFinished,
)
from fopru_graph.terminal import progress
from fopru_graph.terminal.console import show_failure, show_problems, show_warning
from fopru_graph.terminal.format import size
from fopru_graph.terminal.progress import RunDisplay


@pytest.mark.parametrize(
    "end", [NodeFinished("a", 1.0, False), NodeFailed("a", ValueError()), RunFinished("failed", 1.0)]
)
def test_streamed_text_ends_its_line_before_anything_else_is_shown(end, capsys):
    display = RunDisplay({"a": ""})
    for event in (NodeStarted("a", "LLMGenerate"), NodeText("a", "two "), NodeText("a", "words [x]"), end):
        display(event)
    assert capsys.readouterr().out == "two words [x]\n"
    assert display.streamed == {"a": "two words [x]"}
    display(RunFinished("done", 2.0))
    assert capsys.readouterr().out == ""


def test_nothing_is_streamed_where_json_is_wanted(capsys):
    display = RunDisplay({})
    for event in (NodeText("a", "words"), NodeFinished("a", 1.0, False)):
        display(event)
    assert capsys.readouterr().out == ""
    assert not display.streamed


class Spinner:
    """Stands in for rich's: keeps what it shows; None while it is stopped."""

    def __init__(self, text):
        self.text, self.shown = text, None

    def start(self):
        self.shown = self.text.plain

    def update(self, text):
        assert self.shown is not None
        self.shown = text.plain

    def stop(self):
        self.shown = None


def test_progress_is_shown_beside_streamed_text_and_never_in_it(monkeypatch, capsys):
    shown: list[Spinner] = []
    monkeypatch.setattr(progress.console, "status", lambda text, spinner: shown.append(Spinner(text)) or shown[-1])
    display = RunDisplay({"answer": ""})

    def after(event):
        display(event)
        return shown[-1].shown

    assert after(NodeStarted("encode", "VisionEncode")) == "encode VisionEncode"
    assert after(NodeProgress("encode", 3, 24, "layers")) == "encode 3/24 layers"
    assert after(NodeFinished("encode", 1.0, False)) is None
    assert after(NodeProgress("answer", 1, 64, "tokens")) == "answer 1/64 tokens", "its text is held back still"
    for event in (NodeText("answer", "two "), NodeProgress("answer", 2, 64, "tokens"), NodeText("answer", "words")):
        assert after(event) is None
    assert after(NodeProgress("answer", 3, 64, "tokens")) is None
    display(NodeFinished("answer", 1.0, False))
    assert capsys.readouterr().out == "two words\n"
    assert after(NodeProgress("unheard", 1, 64, "tokens")) == "unheard 1/64 tokens"
    assert after(NodeText("unheard", "what nobody asked for")) == "unheard 1/64 tokens"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("count", "shown"), [(None, "–"), (0, "0 B"), (1023, "1023 B"), (663552, "648.0 KiB"), (5 * 2**30, "5.00 GiB")]
)
def test_sizes(count, shown):
    assert size(count) == shown


def test_texts_of_several_nodes_have_lines_and_labels_of_their_own(capsys):
    display = RunDisplay({"a": "first: ", "b": "second: "})
    for name, chunk in (("a", "one "), ("a", ":cat:\tx"), ("b", "two"), ("c", "not wanted"), ("a", "again")):
        display(NodeText(name, chunk))
    display(RunFinished("done", 1.0))
    assert capsys.readouterr().out == "first: one :cat:\tx\nsecond: two\nfirst: again\n"


def test_a_node_that_is_left_out_is_told(capsys):
    RunDisplay({})(NodeSkipped("picture", "it hangs on fopru, whose branch is not taken"))
    assert "skipped: picture: it hangs on fopru" in capsys.readouterr().err


def test_what_users_wrote_is_shown_as_they_wrote_it(capsys):
    odd = "C:\\x\\ :cat: [red]\t2001:db8::ab:cd [/]"
    show_problems([Problem("code", odd, node="n", line=3, hint=odd)], odd)
    show_failure(odd, f"hint {odd}")
    show_warning(odd)
    assert capsys.readouterr().err.count(odd) == 6
