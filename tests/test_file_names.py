"""Folders and files whose names are not UTF-8: results are written and read; a value of a pipeline cannot be one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.evaluation.datafiles import png
from tests.test_cli import PIPELINES, invoke

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
RANK = str(PIPELINES / "fopru_rank.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / os.fsdecode(b"d\xffta")
    made.mkdir()
    return made


def test_a_run_leaves_its_record_which_runs_again(folder):
    first = invoke("run", RANK, "--set", "generate.max_new_tokens=2", "--out", str(folder / "out"))
    assert first.exit_code == 0, first.stderr
    assert "d?ta" in json.loads((folder / "out" / "run.json").read_bytes())["outputs"]["picture"]
    again = invoke("run", str(folder / "out" / "run.json"), "--out", str(folder / "again"))
    assert again.exit_code == 0, again.stderr
    assert first.stdout == again.stdout


def test_a_cell_is_evaluated_resumed_and_reported(folder, monkeypatch):
    (folder / "a.png").write_bytes(png("red"))
    row = {"image": "a.png", "question": "what colour?", "answers": ["red"]}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    options = ("--task", "textvqa", "--data", str(folder / "rows.jsonl"), "--out", str(folder / "out"))
    for _ in range(2):
        result = invoke("eval", RANK, *options)
        assert result.exit_code == 0, result.stderr
    monkeypatch.chdir(folder)
    result = invoke("report", "out")
    assert result.exit_code == 0, result.stderr
    assert "fopru_rank" in (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_nodes_of_a_folder_load(folder):
    source = (PIPELINES.parent / "nodes" / "random_score.py").read_text()
    (folder / "mine.py").write_text(source.replace("RandomScore", "MyScore"))
    result = invoke("nodes", "--nodes", str(folder))
    assert result.exit_code == 0, result.stderr
    assert "MyScore" in result.stdout


def test_as_a_value_it_is_refused_in_one_sentence(folder, tmp_path):
    result = invoke("run", RANK, "--set", f"image={folder / 'a.png'}", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr and "rename" in result.stderr
