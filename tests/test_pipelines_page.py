"""docs/pipelines.md as a reader follows it: every file is written, and every command executed in order."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from fopru_graph.graph import Graph
from fopru_graph.graph.shipped import shipped_pipelines
from tests.test_cli import invoke
from tests.test_pipelines import WITHOUT_RATIO

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_works_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = {}
    for language, text in BLOCK.findall(PAGE):
        if language == "yaml":
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        for line in text.splitlines() if language == "console" else ():
            result = invoke(*shlex.split(line)[1:])
            assert result.exit_code == 0, (line, result.output)
            printed[line] = result.stdout
    assert printed["fopru-graph run both.yaml --set ratio=0.5"] == "before: cafe\ninside: cafe\n"
    assert printed["fopru-graph run form.yaml"] == "cafe\n"
    assert json.loads(Path("fopru-out/run.json").read_text())["status"] == "done"


def test_the_inputs_of_the_page_are_those_of_the_files():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert list(Graph.load("fopru_rank").inputs) == rows
    inputs = PAGE.partition("## Inputs")[2].partition("## Paths")[0]
    assert all(f"`{name}`" in inputs for name in WITHOUT_RATIO)
    ratios = {
        name: Graph.load(name).inputs["ratio"].default for name in shipped_pipelines() if name not in WITHOUT_RATIO
    }
    assert [name for name, ratio in ratios.items() if ratio is None] == ["vscan"]
