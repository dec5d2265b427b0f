"""docs/extend.md as a reader follows it: every file is written and every command executed, in order, in one folder."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import SweepOptions
from fopru_graph.commands.sweep import plan_cells
from fopru_graph.graph.shipped import shipped_pipelines
from tests.test_cli import invoke

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extend.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OTHERS = ("fopru_rank", "fastervlm", "fastv", "random")
EXECUTED = {"python", "yaml", "toml", "console"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("rare", "test_rare", "tokens_pack"):
        sys.modules.pop(name, None)


def write(text: str) -> None:
    """A block is the file that its first line names."""
    path = Path(text.splitlines()[0].removeprefix("# "))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def execute(line: str, monkeypatch) -> str:
    words = shlex.split(line)
    with monkeypatch.context() as patched:
        while "=" in words[0]:
            patched.setenv(*words.pop(0).split("=", 1))
        if words[:2] == ["pip", "install"]:
            install(Path(words[2]), monkeypatch)
        elif words[0] == "pytest":
            run_tests(Path(words[1]), patched)
        elif words[:2] == ["fopru-graph", "sweep"]:
            plan(words[2:])
            # Processes of their own would take a minute; `eval` runs cells of the same options in this one.
            return fopru_graph("eval", *(word for word in words[2:] if word not in OTHERS), "--limit", "2")
        else:
            assert words.pop(0) == "fopru-graph"
            return fopru_graph(*words)
    return ""


def fopru_graph(*words: str) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "failed to load" not in result.stderr
    return result.stdout


def run_tests(file: Path, patched) -> None:
    """Call the file's tests, with its folder on the path as pytest has it."""
    patched.syspath_prepend(file.resolve().parent)
    tests = [value for name, value in vars(importlib.import_module(file.stem)).items() if name.startswith("test_")]
    for test in tests:
        test()
    assert tests


def plan(words: list[str]) -> None:
    given = dict(zip(words, words[1:], strict=False))
    files = words[: words.index("--nodes")]
    options = SweepOptions(given["--task"], given["--ratio"], replace="--replace" in words)
    paths = [shipped_pipelines().get(name, Path(name)) for name in files]
    assert len(plan_cells(paths, [Path(given["--nodes"])], options, ModelOptions())) == 6


def install(source: Path, monkeypatch) -> None:
    """Put the package on the path with the metadata that an installer makes of its pyproject.toml."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    described = source / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
              for group, points in project["entry-points"].items()]  # fmt: skip
    (described / "entry_points.txt").write_text("".join(groups))
    monkeypatch.syspath_prepend(source.resolve())


def test_the_page_works_from_top_to_bottom(folder, monkeypatch):
    printed = {}
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        assert language in EXECUTED or language == "text"
        if language in EXECUTED - {"console"}:
            write(text)
        for line in text.splitlines() if language == "console" else ():
            printed[line] = execute(line, monkeypatch)
    assert "Loudest" in printed["fopru-graph nodes Loudest"]
    assert (
        printed["fopru-graph run all.yaml --nodes ."] == printed["FOPRU_GRAPH_NODES=. fopru-graph run all.yaml"] != ""
    )
    assert Path("fopru-eval/report.html").is_file()


def test_the_nodes_of_the_page_are_short():
    nodes = [text for language, text in BLOCK.findall(PAGE.read_text()) if language == "python" and "@node" in text]
    assert len(nodes) == 4
    for text in nodes:
        assert len([line for line in text.splitlines()[1:] if line.strip()]) <= 12
