"""What the README shows works: its code is run as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fopru_graph.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("llava-hf", "photos/")  # need the hub, or stand for the reader's own file


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_console_commands_run(folder):
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("fopru-graph ")]
    assert len(lines) >= 4
    for line in lines:
        if not any(word in line for word in NOT_HERE):
            run(*shlex.split(line)[1:])


def test_the_first_question_gets_its_answer(folder):
    assert run(*shlex.split(blocks("console")[1].splitlines()[0])[1:]) == "white\n"


def test_the_five_line_pipeline_runs(folder):
    (block,) = blocks("yaml")
    assert len(block.splitlines()) == 5
    (folder / "sign.yaml").write_text(block)
    assert run("run", "sign.yaml") == "cafe\n"
    assert (folder / "fopru-out" / "sign.txt").read_text() == "cafe\n"


def test_the_five_lines_of_python_run(folder, capsys):
    exec(compile(blocks("python")[0], "README", "exec"), {})
    assert capsys.readouterr().out.startswith("white {'encoded': 256, 'kept': 64,")
    exec(compile(blocks("python")[1], "README", "exec"), {})
    assert capsys.readouterr().out == "bank\n"


def test_the_own_node_runs(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "key_norm.py").write_text(blocks("python")[2])
    text = (ROOT / "pipelines" / "fopru_rank.yaml").read_text().replace("type: Significance", "type: KeyNorm")
    (folder / "my.yaml").write_text(text)
    assert "stop" in run("run", "my.yaml", "--nodes", "mine", "--set", "prune.ratio=1.0")


def test_the_table_of_commands_is_whole():
    shown = re.findall(r"`([a-z]+)`", README.partition("## Commands")[2].partition("Each has")[0])
    commands = typer.main.get_command(app).commands
    assert sorted(set(shown) & set(commands)) == sorted(commands)


def test_it_is_short():
    assert len(README.splitlines()) <= 150
