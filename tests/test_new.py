"""`fopru-graph new`: what it writes works as it stands, its test can fail, and nothing is overwritten."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from fopru_graph.graph import Graph, Registry
from fopru_graph.graph.shipped import shipped_pipelines
from tests.test_cli import PIPELINES, invoke


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*arguments: str):
    result = invoke("new", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_tests(monkeypatch) -> dict[str, bool]:
    """The tests that were written, each with whether it passes, as pytest imports them: their folder is on the path."""
    with monkeypatch.context() as patched:
        patched.syspath_prepend(Path.cwd())
        patched.setattr(sys, "dont_write_bytecode", True)
        tests = vars(importlib.import_module("test_key_norm"))
        passed = {}
        for name in [name for name in tests if name.startswith("test_")]:
            try:
                tests[name]()
                passed[name] = True
            except AssertionError:
                passed[name] = False
        for name in ("key_norm", "test_key_norm"):
            del sys.modules[name]
    return passed


def test_a_new_node_is_short_runs_and_its_test_passes_until_the_rule_is_changed(folder, monkeypatch):
    printed = new("node", "KeyNorm")
    assert sorted(path.name for path in folder.iterdir()) == ["key_norm.py", "key_norm.yaml", "test_key_norm.py"]
    text = (folder / "key_norm.py").read_text()
    assert len(text.splitlines()) <= 30 and text.count("Change this") == 1
    assert not any("my_scorer" in path.read_text().lower() for path in folder.iterdir())
    run, sweep, report = [line for line in printed.splitlines() if line.startswith("fopru-graph ")]
    ran = invoke(*shlex.split(run)[1:])
    assert (ran.exit_code, ran.stdout) == (0, "stop\n"), ran.stderr
    assert json.loads(Path("fopru-out/run.json").read_text())["nodes"]["significance"]["type"] == "KeyNorm"
    assert shlex.split(sweep)[1:3] == ["sweep", "key_norm.yaml"] and shlex.split(report)[1:] == ["report", "fopru-eval"]
    every, scores = "test_every_visual_token_has_one_finite_score", "test_the_scores_are_those_of_the_slow_rule"
    assert run_tests(monkeypatch) == {every: True, scores: True}
    (folder / "key_norm.py").write_text(text.replace("norm(dim=-1)", "sum(dim=-1)"))
    assert run_tests(monkeypatch) == {every: True, scores: False}
    (folder / "key_norm.py").write_text(text.replace(".norm(dim=-1)", ".norm()"))
    assert run_tests(monkeypatch) == {every: False, scores: False}


def test_the_next_sweep_is_one_that_can_be_planned(folder):
    from fopru_graph.commands.model_options import ModelOptions
    from fopru_graph.commands.option_groups import SweepOptions
    from fopru_graph.commands.sweep import plan_cells

    command = shlex.split(json.loads(new("node", "key_norm", "--json"))["next"][1])
    names = command[2 : command.index("--nodes")]
    files = [shipped_pipelines().get(name, Path(name)) for name in names]
    options = SweepOptions(command[command.index("--task") + 1], command[command.index("--ratio") + 1])
    cells = plan_cells(files, [Path("key_norm.py")], options, ModelOptions())
    assert [cell.facts["pipeline"] for cell in cells] == ["key_norm", *names[1:]] and len(cells) == 6


def test_a_new_node_can_go_into_another_folder_that_is_then_a_pack(folder):
    assert "[a]/x.yaml" in new("pipeline", "x", "--to", "[a]")
    described = json.loads(new("node", "key-norm", "--to", "a b/mine", "--json"))
    assert described["files"] == [f"a b/mine/{name}" for name in ("key_norm.py", "test_key_norm.py", "key_norm.yaml")]
    assert described["next"][0] == "fopru-graph run 'a b/mine/key_norm.yaml' --nodes 'a b/mine/key_norm.py'"
    registry = Registry.default()
    assert registry.load_folder("a b/mine") == []
    assert Graph.load("a b/mine/key_norm.yaml", registry).problems() == []


def test_a_new_pipeline_is_the_shipped_one_under_another_name(folder):
    described = json.loads(new("pipeline", "mine", "--to", "here", "--json"))
    assert described["files"] == ["here/mine.yaml"] and "--nodes" not in "".join(described["next"])
    made, shipped = Graph.load("here/mine.yaml"), Graph.load(PIPELINES / "fopru_rank.yaml")
    assert made.name == "mine" and made.description != shipped.description
    made.name, made.description = shipped.name, shipped.description
    assert made.dumps() == shipped.dumps()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("2fast", "cannot be the name"),
        ("my node", "cannot be the name"),
        ("../up", "cannot be the name"),
        ("_hidden", "cannot be the name"),
        ("class", "word of Python's own"),
        ("json", "would hide the module json"),
        ("torch", "would hide the module torch"),
        ("test_it", "would be taken for a test"),
        ("conftest", "would be taken for a test"),
        ("RankPrune", "there is a node type RankPrune already"),
        ("fopru_rank", "a pipeline that ships is called fopru_rank"),
    ],
)
def test_a_bad_name_is_one_sentence_and_a_hint(folder, name, said):
    result = invoke("new", "node", name, "--json")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 2 and said in error["message"] and error["hint"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("taken", ["key_norm.py", "test_key_norm.py", "key_norm.yaml"])
def test_nothing_is_overwritten_and_then_nothing_is_written(folder, taken):
    (folder / taken).write_text("mine")
    result = invoke("new", "node", "key_norm")
    assert result.exit_code == 2 and f"{taken} is there already" in result.stderr
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(taken, "mine")]


def test_a_folder_that_cannot_be_made_is_one_sentence(folder):
    (folder / "file").write_text("")
    result = invoke("new", "pipeline", "mine", "--to", "file/in")
    assert result.exit_code == 1 and "cannot be written" in result.stderr and "--to" in result.stderr


def test_shipped_pipelines_go_by_their_names_where_no_file_has_that_name(folder):
    assert invoke("validate", "fopru_rank").stdout == f"{shipped_pipelines()['fopru_rank']}: valid\n"
    (folder / "fopru_rank").write_text("no pipeline")
    assert invoke("validate", "fopru_rank").exit_code == 2
    for path, hint in (("fopru_rnk", "did you mean 'fopru_rank'?"), ("x/fastv.yaml", "that ships is fastv")):
        unknown = invoke("validate", path)
        assert unknown.exit_code == 2 and f"no file {path}" in unknown.stderr and hint in unknown.stderr
    drawn = [invoke("draw", name).stdout for name in ("fastv", str(PIPELINES / "fastv.yaml"))]
    assert drawn[0] == drawn[1] != ""
