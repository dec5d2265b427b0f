"""Pipelines on the command line: their names, their inputs and their ratio."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import SweepOptions
from fopru_graph.commands.sweep import plan_cells
from fopru_graph.graph.shipped import shipped_pipelines
from tests.test_cli import invoke


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -- run --ratio ------------------------------------------------------------------------------------------------------


def test_the_ratio_of_a_run_is_that_of_a_bench():
    data = json.loads(invoke("run", "fopru_fastv", "--ratio", "0.0625", "--json").stdout)
    assert [data["visual_tokens"][key] for key in ("encoded", "kept", "final")] == [256, 64, 16]
    assert data["ttft_ms"] > 0
    explained = invoke("run", "fopru_rank", "--ratio", "0.5", "--explain", "--json")
    asked = json.loads(explained.stdout)["prune"]["made_of"]["inputs"]["ratio"]
    assert asked == ["float", "0.5"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["baseline", "--ratio", "0.5"], "baseline has no ratio to set: it drops no visual tokens"),
        (["prumerge", "--ratio", "0.5"], "prumerge has no ratio to set: it chooses the number of tokens itself"),
        (["fopru_rank", "--ratio", "2"], "ratio 2 is not in (0, 1]"),
        (["fopru_rank", "--ratio", "0.5", "--set", "prune.tokens=8"], "prune.tokens is fixed, so no ratio can be set"),
        (["fopru_rank", "--ratio", "half"], "Invalid value for '--ratio'"),
    ],
)
def test_a_ratio_that_cannot_be_set_is_one_sentence(arguments, says):
    result = invoke("run", *arguments, "--json")
    assert result.exit_code == 2 and says in json.loads(result.stdout)["error"]["message"]


# -- pipelines --------------------------------------------------------------------------------------------------------


def test_what_ships_is_listed_by_name():
    listed = json.loads(invoke("pipelines", "--json").stdout)["pipelines"]
    assert [entry["name"] for entry in listed] == list(shipped_pipelines()) == sorted(shipped_pipelines())
    lines = invoke("pipelines").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("hired ")]
    assert "0.2" in line and "overview" in line
    assert len(lines) >= len(listed) + 2


@pytest.mark.parametrize("arguments", [["pipelines", "fopru_fastv"], ["run", "fopru_fastv", "--help-inputs"]])
def test_the_inputs_of_a_pipeline_are_shown_with_what_reads_them(arguments):
    shown = invoke(*arguments).stdout
    for word in ("max_new_tokens", "demo:street-sign", "renumbered | original | rebased", "null", "stage_ratio"):
        assert word in shown
    data = json.loads(invoke(*arguments, "--json").stdout)
    assert list(data["inputs"]) == ["model", "image", "prompt", "ratio", "max_new_tokens", "positions"]
    ratio = "share of the visual tokens left behind the last stage; empty: each has otherwise"
    assert data["inputs"]["ratio"] == {"type": "float", "default": 0.25, "doc": ratio}
    assert data["inputs"]["positions"]["choices"] == ["renumbered", "original", "rebased"]
    assert data["nodes"]["fastv"] == "FastVPrune" and data["outputs"] == ["text", "picture"]


def test_an_own_pipeline_is_shown_too_with_what_it_requires(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "format: 1\nname: mine\ninputs:\n  question: {type: str}\n"
        "nodes:\n  ask: {type: fopru_rank, inputs: {prompt: $inputs.question}}\noutputs: {text: $ask.text}\n"
    )
    data = json.loads(invoke("pipelines", "mine.yaml", "--json").stdout)
    assert "default" not in data["inputs"]["question"] and "<image> marks" in data["inputs"]["question"]["doc"]
    assert "required" in invoke("run", "mine.yaml", "--help-inputs").stdout


def test_copies_are_those_that_ship_and_replace_nothing(tmp_path):
    assert invoke("pipelines", "evs", "--copy", "mine").stdout == "mine/evs.yaml\n"
    assert (tmp_path / "mine" / "evs.yaml").read_bytes() == shipped_pipelines()["evs"].read_bytes()
    result = invoke("pipelines", "--copy", "mine")
    assert result.exit_code == 2 and "mine/evs.yaml is there already" in result.stderr and "--copy" in result.stderr
    assert len(list((tmp_path / "mine").iterdir())) == 1
    files = json.loads(invoke("pipelines", "--copy", "all", "--json").stdout)["files"]
    assert files == [f"all/{name}.yaml" for name in shipped_pipelines()]


def test_a_name_that_is_none_is_refused_with_the_nearest():
    result = invoke("pipelines", "fopru_fast", "--json")
    assert result.exit_code == 2 and json.loads(result.stdout)["error"]["hint"] == "did you mean 'fopru_fastv'?"


def test_the_list_needs_no_torch():
    code = (
        "import sys\nfrom fopru_graph.cli import app\n"
        "for arguments in (['pipelines'], ['run', 'fastv', '--help-inputs']):\n"
        "    try:\n        app(arguments)\n    except SystemExit as end:\n        assert not end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


# -- without a node ---------------------------------------------------------------------------------------------------


def test_a_run_without_a_node_and_its_record():
    data = json.loads(invoke("run", "fopru_fastv", "--without", "fastv", "--without", "picture", "--json").stdout)
    assert [data["visual_tokens"][key] for key in ("kept", "final")] == [128, 128]
    assert data["outputs"] == {"text": "stop", "picture": None}
    again = json.loads(invoke("run", "fopru-out/run.json", "--out", "again", "--json").stdout)
    assert again["visual_tokens"] == data["visual_tokens"] and "fastv" not in again["nodes"]


def test_what_cannot_be_left_out_is_said_before_a_run():
    result = invoke("validate", "fopru_fastv", "--without", "prune")
    assert result.exit_code == 2
    assert "reorder.selection reads $prune, which is disabled" in result.stderr
    assert "disable reorder as well" in result.stderr
    assert invoke("validate", "fopru_fastv", "--without", "prune", "--without", "reorder").exit_code == 0
    assert "did you mean 'fastv'?" in invoke("run", "fopru_fastv", "--without", "fast").stderr


def test_it_is_drawn_dashed():
    assert invoke("draw", "fopru_fastv", "--without", "fastv", "--format", "dot").stdout.count("dashed") == 1


def test_a_sweep_compares_with_and_without(tmp_path):
    switched = SweepOptions(task="scenes", ratio="0.25", sets=["fastv.enabled=true,false"], out=tmp_path)
    cells = plan_cells([shipped_pipelines()["fopru_fastv"]], None, switched, ModelOptions())
    assert [cell.facts["settings"] for cell in cells] == [{"fastv.enabled": True}, {"fastv.enabled": False}]
    assert len({cell.label for cell in cells}) == 2
    files = [shipped_pipelines()[name] for name in ("fopru_fastv", "fopru_rank")]
    left = SweepOptions(task="scenes", ratio="0.25", without=["fastv"], out=tmp_path)
    cells = plan_cells(files, None, left, ModelOptions())
    assert ["fastv.enabled=false" in cell.argv for cell in cells] == [True, False]  # where there is such a node
