"""``fopru-graph report``: files where they belong, one sentence for whatever is wrong, no torch and no network."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.page.fake_results import write_cell
from tests.test_cli import invoke

ROOT = Path(__file__).resolve().parent.parent
_ISOLATED = """
import socket, sys
from pathlib import Path
def refuse(*arguments, **options):
    raise AssertionError("the report asks the network")
socket.socket.connect = socket.getaddrinfo = refuse
from fopru_graph.commands.report import report_results
report_results(Path(sys.argv[1]), None, False)
assert not {"torch", "transformers"} & set(sys.modules), "the report loads the model's libraries"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The unpruned model, a method, random, and a cell without a summary."""
    folder = tmp_path / "results"
    write_cell(folder, "baseline", "scenes", 1.0, 0.9, 256, 24, prunes=False)
    write_cell(folder, "fopru_rank", "scenes", 0.25, 0.8, 64, 24)
    write_cell(folder, "random", "scenes", 0.25, 0.4, 64, 24)
    (write_cell(folder, "fastv", "scenes", 0.25, 0.5, 64, 24) / "summary.json").unlink()
    return folder


def test_the_page_and_its_files_lie_in_the_folder(folder: Path) -> None:
    result = invoke("report", str(folder))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder / 'report.html'}\n"
    assert result.stderr == "warning: left out fastv--scenes--r0.25: unfinished: there is no summary.json\n"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (folder / "tables" / "accuracy.tex").is_file() and (folder / "figures" / "accuracy.svg").is_file()


def test_everything_goes_where_output_says_and_nothing_into_the_results(folder: Path, tmp_path: Path) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}
    result = invoke("report", str(folder), "--output", str(tmp_path / "pages" / "one.html"))
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "pages" / "one.html").is_file() and not (folder / "report.html").exists()
    assert (tmp_path / "pages" / "tables" / "accuracy.csv").is_file()
    assert (tmp_path / "pages" / "figures" / "accuracy.svg").is_file()
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_json_names_files_and_comparisons(folder: Path) -> None:
    result = invoke("report", str(folder), "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["report"] == str(folder / "report.html") and data["cells"] == 3
    assert data["left_out"] == [{"name": "fastv--scenes--r0.25", "reason": "unfinished: there is no summary.json"}]
    assert all(Path(file).is_file() for file in data["files"]) and len(data["files"]) > 10
    compared = {(c["method"], c["against"]): c for c in data["comparisons"]}
    assert set(compared) == {("fopru_rank", "unpruned"), ("fopru_rank", "random"), ("random", "unpruned")}
    comparison = compared["fopru_rank", "random"]
    assert (
        comparison["n"] == 24
        and comparison["low"] <= comparison["difference"] <= comparison["high"]
        and comparison["p"] <= comparison["p_holm"] <= 1
    )


def test_a_second_report_replaces_the_first(folder: Path) -> None:
    invoke("report", str(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert invoke("report", str(folder)).exit_code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_results_is_bad_usage(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "empty"
    if exists:
        folder.mkdir()
    result = invoke("report", str(folder))
    assert result.exit_code == 2 and result.stdout == ""
    assert ("holds no results" if exists else "there is no folder") in result.stderr and "hint:" in result.stderr
    assert not exists or list(folder.iterdir()) == []


def test_what_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "figures").write_text("a file where the folder should be")
    result = invoke("report", str(folder))
    assert result.exit_code == 1
    assert "figures/accuracy.svg cannot be written" in result.stderr


def test_neither_torch_nor_the_network_is_needed(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _ISOLATED, str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_to_run_it_all_again_is_pasted_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a shell in another folder: nothing is done anew but the page."""
    home, elsewhere = tmp_path / "my work", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    baseline = str(ROOT / "pipelines" / "baseline.yaml")
    argv = ["eval", os.path.relpath(baseline), "--task", "scenes", "--limit", "2", "--out", "my results"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/__main__.py", *argv])
    assert invoke(*argv).exit_code == 0 and invoke("report", "my results").exit_code == 0
    page = home / "my results" / "report.html"
    pasted = html.unescape(page.read_text().partition("<pre>")[2].partition("</pre>")[0])
    (results,) = (home / "my results").glob("baseline--*/results.jsonl")
    rows = results.read_bytes()
    page.unlink()
    (elsewhere / "fopru-graph").write_text(f"#!{sys.executable}\nfrom fopru_graph.cli import main\nmain()\n")
    (elsewhere / "fopru-graph").chmod(0o755)
    environment = os.environ | {"PATH": f"{elsewhere}:{os.environ['PATH']}"}
    script = ["bash", "-e", "-c", pasted]
    done = subprocess.run(script, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert page.is_file() and sorted(path.name for path in elsewhere.iterdir()) == ["fopru-graph"]
    assert results.read_bytes() == rows
