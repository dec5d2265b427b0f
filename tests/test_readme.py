"""What the README shows works: its code is run as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fopru_graph.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("llava-hf", "my.yaml")  # need the hub, or stand for the reader's own file


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
    assert len(lines) >= 6
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


@pytest.mark.parametrize(("index", "answer"), [(0, "bank"), (1, "red")])
def test_the_python_graphs_run(folder, capsys, index, answer):
    exec(compile(blocks("python")[index], "README", "exec"), {})
    assert capsys.readouterr().out == f"{answer}\n"


def test_the_own_node_runs(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "key_norm.py").write_text(blocks("python")[2])
    text = (ROOT / "pipelines" / "fopru_rank.yaml").read_text().replace("type: Significance", "type: KeyNorm")
    (folder / "my.yaml").write_text(text)
    assert "stop" in run("run", "my.yaml", "--nodes", "mine", "--set", "prune.ratio=1.0")


def test_the_table_of_methods_names_what_ships():
    shipped = {path.stem for path in (ROOT / "pipelines").rglob("*.yaml")}
    named = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert set(named) <= shipped and 6 <= len(named) <= 8
    assert f"{len(shipped)} ship; to begin with:" in README
