"""Pipelines as ComfyUI's files on the command line: written by ``export``, and read wherever a pipeline is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fopru_graph.graph import Graph
from tests.comfy.pipelines import whole
from tests.test_cli import invoke

RECORDED = Path(__file__).parent / "comfy" / "recorded" / "prompt_1.58.1.json"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str) -> str:
    """The message and hint of a command that is refused as bad usage, and writes nothing."""
    before = sorted(Path().iterdir())
    result = invoke(*arguments, "--json")
    assert result.exit_code == 2 and sorted(Path().iterdir()) == before
    error = json.loads(result.stdout)["error"]
    return f"{error['message']} | {error['hint']}"


@pytest.mark.parametrize("kind", ["api", "workflow"])
def test_a_pipeline_is_written_beside_its_name_and_read_back_the_same(tmp_path, kind):
    graph = whole(tmp_path)
    result = invoke("export", "whole.yaml", f"--comfy-{kind}", "--json")
    assert result.exit_code == 0, result.stderr
    file = Path(f"whole.{kind}.json")
    assert json.loads(result.stdout) == {
        "file": file.name,
        "to": f"comfy-{kind}",
        "bytes": file.stat().st_size,
        "nodes": len(graph.flat().nodes),
    }
    assert Graph.load(file) == graph


def test_what_is_set_is_in_the_file_which_o_names():
    arguments = ("--set", "prompt=who ?", "--ratio", "0.5", "-o", "mine.json")
    result = invoke("export", "fopru_rank", "--comfy-api", *arguments)
    assert (result.exit_code, result.stdout) == (0, "mine.json\n")
    nodes = json.loads(Path("mine.json").read_text())
    assert nodes["generate"]["inputs"]["prompt"] == "who ?" and nodes["prune"]["inputs"]["ratio"] == 0.5


def test_a_file_that_comfyui_does_not_open_is_a_warning(tmp_path):
    Path("cat.png").write_bytes(b"")
    result = invoke("export", "fopru_rank", "--comfy-api", "--set", "image=cat.png")
    assert result.exit_code == 0
    assert "image.path is" in result.stderr and "ComfyUI opens only what lies in its own input folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fopru_rank", "--comfy-api", "--to", "vllm"], "--to and --comfy-api are different files"),
        (["fopru_rank", "--comfy-api", "--comfy-workflow"], "--comfy-api and --comfy-workflow are different files"),
        (["--comfy-pack", "pack", "--comfy-workflow"], "--comfy-workflow and --comfy-pack are different files"),
        (["--comfy-api"], "no pipeline is given | give its file"),
        ([], "no pipeline is given | give its file"),
        (["fopru_rank", "--comfy-pack", "pack"], "--comfy-pack holds all pipelines that ship, not"),
        (["--comfy-pack", "pack", "-o", "x"], "--comfy-pack is given the folder itself | leave out -o"),
        (["fopru_rank", "--comfy-api", "--positions", "row"], "--positions is for engines"),
        (["fopru_rank", "--comfy-api", "-o", "no/where.json"], "no/where.json cannot be written: No such file"),
        (["baseline", "--comfy-api", "--ratio", "0.5"], "has no ratio to set"),
        (["evs", "--comfy-api"], "the pipeline input model has no value, and a canvas shows one"),
        (["fopru_rank", "--comfy-api", "--set", "generate.prompt:=[a, b]"], 'generate.prompt cannot be ["a", "b"]'),
    ],
)
def test_what_cannot_be_written_is_refused(arguments, words):
    assert words in refused("export", *arguments)


def test_the_problems_of_a_pipeline_are_told_with_their_lines(tmp_path):
    whole(tmp_path)
    Path("whole.yaml").write_text(Path("whole.yaml").read_text().replace("layer: 2", "layer: two"))
    result = invoke("export", "whole.yaml", "--comfy-api")
    assert result.exit_code == 2 and "whole.yaml:16" in result.stderr


def test_a_prompt_is_validated_drawn_and_run_like_any_pipeline():
    assert invoke("validate", str(RECORDED)).exit_code == 0
    drawn = invoke("draw", str(RECORDED)).stdout
    assert "RankPrune" in drawn and "FastVPrune" in drawn
    result = invoke("run", str(RECORDED), "--to", "text", "--set", "prune.ratio=0.25")
    assert (result.exit_code, result.stdout) == (0, "stop\n")
    record = json.loads(Path("fopru-out/run.json").read_text())
    assert Graph.loads(record["pipeline"]).nodes["prune"].inputs["ratio"] == 0.25


def test_what_is_wrong_in_a_prompt_is_told_with_node_and_input():
    nodes = json.loads(RECORDED.read_text())
    nodes["prune"]["inputs"]["ratio"] = 7
    nodes["9"] = {"class_type": "KSampler", "inputs": {}}
    Path("x.json").write_text(json.dumps(nodes))
    result = invoke("validate", "x.json", "--json")
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert [(p["node"], p["input"], p["code"]) for p in problems] == [
        ("9", None, "unknown-type"),
        ("prune", "ratio", "out-of-range"),
    ]
    assert "Traceback" not in result.stderr
