"""`run --watch`: again after every change, with what did not change from the cache, until Ctrl-C."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fopru_graph.cli import app
from fopru_graph.commands import watch as watching
from tests.test_cli import PIPELINES, invoke
from tests.test_cli_output import Full

NODES = '''
from fopru_graph import Node, node


@node(category="flow")
class Base(Node):
    """Be slow to make."""

    def run(self, text: str) -> str:
        return text
'''
USER = '''
from fopru_graph import Node, node


@node(category="flow")
class Shout(Node):
    """Shout."""

    def run(self, text: str) -> str:
        return text.upper() + "!"
'''
BOTH = ("p.yaml", "--nodes", "base.py", "--nodes", "mine")
PIPELINE = """format: 1
inputs: {word: {type: str, default: hello}}
nodes:
  base: {type: Base, inputs: {text: $inputs.word}}
  shout: {type: Shout, inputs: {text: $base}}
outputs: {text: $shout}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "base.py").write_text(NODES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shout.py").write_text(USER)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(name: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        text = Path(name).read_text()
        assert old in text
        Path(name).write_text(text.replace(old, new))

    return change


def watch(monkeypatch, edits: Sequence[Callable[[], object]], *arguments: str):
    """Watch with an edit in place of every first pause after a run, and Ctrl-C after the last."""
    pending, pauses = iter(edits), itertools.count()

    def sleep(_seconds: float) -> None:
        if next(pauses) % 2 == 0:  # in the second pause nothing happens: the edit is over
            if (change := next(pending, None)) is None:
                raise KeyboardInterrupt
            change()

    monkeypatch.setattr(watching.time, "sleep", sleep)
    return invoke("run", "--watch", *(arguments or BOTH))


def test_each_edit_is_run_and_what_did_not_change_comes_from_the_cache(folder, monkeypatch):
    edits = [edit("mine/shout.py", '"!"', '"!!"'), edit("p.yaml", "default: hello", "default: goodbye")]
    result = watch(monkeypatch, edits, *BOTH, "--json")
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert [run["outputs"]["text"] for run in (first, second, third)] == ["HELLO!", "HELLO!!", "GOODBYE!!"]
    assert [second["nodes"][name]["cached"] for name in ("base", "shout")] == [True, False]
    assert [third["nodes"][name]["cached"] for name in ("base", "shout")] == [False, False]
    assert result.exit_code == 130
    assert "changed: mine/shout.py" in result.stderr and "changed: p.yaml" in result.stderr


def test_broken_edits_are_told_and_the_next_good_one_runs(folder, monkeypatch):
    edits = [
        edit("mine/shout.py", "return text", "return text ("),
        edit("mine/shout.py", "return text (", "return text"),
        edit("p.yaml", "type: Shout", "type: Shot"),
        edit("p.yaml", "type: Shot", "type: [Shot"),
        Path("p.yaml").unlink,
        lambda: Path("p.yaml").write_text(PIPELINE),
        edit("mine/shout.py", "text.upper()", "text.uper()"),
    ]
    result = watch(monkeypatch, edits)
    assert result.stdout == "HELLO!\n" * 3
    assert result.exit_code == 130
    for told in ("mine/shout.py:10 failed to load: SyntaxError", "did you mean 'Shout'?", "cannot read p.yaml", "uper"):
        assert told in result.stderr
    assert "most recent call" not in result.stderr and "packs.py" not in result.stderr


def test_a_failed_run_has_its_error_object_in_the_stream(folder, monkeypatch):
    result = watch(monkeypatch, [edit("p.yaml", "$shout", "$shot"), edit("p.yaml", "$shot", "$shout")], *BOTH, "--json")
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert first["outputs"] == third["outputs"] == {"text": "HELLO!"}
    assert "unknown-node" in [problem["code"] for problem in second["error"]["problems"]]


def test_new_files_of_a_pack_sub_graphs_and_packs_of_the_environment_are_watched(folder, monkeypatch):
    (folder / "outer.yaml").write_text("format: 1\nnodes: {inner: {type: ./p.yaml}}\noutputs: {text: $inner.text}\n")
    monkeypatch.setenv("FOPRU_GRAPH_NODES", "mine")
    packs, pipelines = [Path("mine")], [Path("outer.yaml"), *watching._blocks(Path("outer.yaml"))]
    assert pipelines[1].resolve() == (folder / "p.yaml").resolve()
    before = watching._look(pipelines, packs)
    (folder / "mine" / "more.py").write_text("")
    assert set(watching._look(pipelines, packs)) - set(before) == {Path("mine/more.py")}
    edits = [edit("mine/shout.py", '"!"', '"?"'), edit("p.yaml", "hello", "bye")]
    result = watch(monkeypatch, edits, "outer.yaml", "--nodes", "base.py")
    assert result.stdout == "HELLO!\nHELLO?\nBYE?\n", result.stderr


def test_it_ends_when_nobody_can_read_the_results(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full(errno.ENOSPC))
    monkeypatch.setattr(watching.time, "sleep", lambda _seconds: pytest.fail("waits for nothing"))
    with pytest.raises(SystemExit) as end:
        app(["run", "--watch", *BOTH])
    assert end.value.code == 1


def test_watching_explains_nothing(folder):
    result = invoke("run", "p.yaml", "--watch", "--explain")
    assert result.exit_code == 2 and "leave one of them out" in result.stderr


def test_ctrl_c_ends_the_waiting_with_130_and_no_traceback(folder):
    command = [sys.executable, "-m", "fopru_graph", "run", "p.yaml", "--nodes", ".", "--nodes", "mine", "--watch"]
    environment = os.environ | {"PYTHONPATH": str(PIPELINES.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("Ctrl-C ends" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert (process.returncode, printed) == (130, "HELLO!\n")
    assert "Traceback" not in errors
