"""Pipelines of several parts at the command line: sub-graphs, two answers, branches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.test_cli import PIPELINES, invoke

README = (PIPELINES.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def sign(tmp_path, monkeypatch):
    """The README's pipeline of five lines, as it stands there."""
    (tmp_path / "pipelines").symlink_to(PIPELINES)
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "sign.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return "sign.yaml"


def test_a_pipeline_in_a_sub_graph_can_be_evaluated_at_ratios(sign):
    result = invoke("eval", sign, "--task", "scenes", "--ratio", "0.5", "--limit", "2", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["results"]
    assert (row["ratio"], row["tokens"]["kept"], row["errors"], row["n"]) == (0.5, 128, 0, 2)


def test_a_pipeline_in_a_sub_graph_can_be_benched_beside_stock(sign):
    options = ["--ratio", "0.25", "--new-tokens", "2", "--repeat", "1", "--stock", "--json"]
    result = invoke("bench", sign, *options)
    assert result.exit_code == 0, result.stderr
    variants = json.loads(result.stdout)["variants"]
    assert [variant["visual_per_layer"][0] for variant in variants] == [64, 256]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dtype", "nonsense"], "nonsense"),
        (["--device", "nonsense"], "nonsense"),
        (["--attn", "nonsense"], "nonsense"),
        (["--set", "sign/model.dtype=nonsense"], "nonsense"),
        (["--set", "sign/modle.dtype=float32"], "did you mean 'model'"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["eval", "--task", "scenes"]])
def test_options_of_the_model_reach_it_in_a_sub_graph(sign, command, options, says):
    result = invoke(command[0], sign, *command[1:], *options)
    assert result.exit_code in (1, 2) and says in result.stderr, result.stderr


def test_the_dtype_of_a_model_in_a_sub_graph_is_the_given_one(sign):
    result = invoke("run", sign, "--dtype", "bfloat16", "--attn", "eager", "--json")
    assert json.loads(result.stdout)["dtype"] == "bfloat16"
    again = invoke("run", "fopru-out/run.json", "--json", "--out", "again")
    assert json.loads(again.stdout)["dtype"] == "bfloat16", "the record replays with the option"


def test_an_option_that_no_node_takes_is_refused(tmp_path):
    (tmp_path / "text.yaml").write_text(
        "format: 1\nnodes:\n  save: {type: SaveText, inputs: {text: a}}\noutputs: {x: $save}\n"
    )
    result = invoke("run", str(tmp_path / "text.yaml"), "--dtype", "float32", "--out", str(tmp_path))
    assert result.exit_code == 2 and "--dtype: the pipeline has no LoadModel node" in result.stderr


def test_what_is_wrong_with_a_file_comes_before_an_option_that_finds_no_node(tmp_path):
    (tmp_path / "typo.yaml").write_text("format: 1\nnodes:\n  model: {type: LoadModle}\noutputs: {x: $model}\n")
    (tmp_path / "lost.yaml").write_text("format: 1\nnodes:\n  a: {type: ./nowhere.yaml}\noutputs: {x: $a}\n")
    for name, says in (("typo", "LoadModel"), ("lost", "nowhere.yaml")):
        result = invoke("run", str(tmp_path / f"{name}.yaml"), "--dtype", "float32")
        assert result.exit_code == 2 and says in result.stderr and "--dtype" not in result.stderr


def test_a_pipeline_that_sets_inputs_inside_a_sub_graph_is_drawn_and_validated(sign):
    text = Path(sign).read_text().replace("image: demo:night-cafe", "image: demo:night-cafe, prune.ratio: 0.5")
    Path(sign).write_text(text)
    assert invoke("validate", sign).exit_code == 0
    for form in ("mermaid", "dot", "svg"):
        assert "prune.ratio" in invoke("draw", sign, "--format", form).stdout


@pytest.mark.parametrize("to", ["text", "sign", "sign.text", "sign/generate", "sign/generate.text"])
def test_a_run_goes_up_to_an_output_by_any_of_its_names(sign, to):
    result = invoke("run", sign, "--to", to)
    assert (result.exit_code, result.stdout) == (0, "cafe\n")
    assert not Path("fopru-out/sign.txt").exists()


def without_pictures(name: str) -> str:
    """A shipped pipeline that writes no file, for use as a sub-graph."""
    text = (PIPELINES / f"{name}.yaml").read_text().replace(", picture: $picture}", "}")
    return re.sub(r"  picture:.*?(?=outputs)", "", text, flags=re.DOTALL)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    for name in ("fopru_rank", "baseline"):
        (tmp_path / f"{name}.yaml").write_text(without_pictures(name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


BOTH = """\
format: 1
nodes:
  a: {type: ./fopru_rank.yaml}
  b: {type: ./baseline.yaml, inputs: {prompt: what colour is the circle ?}}
outputs: {sign: $a.text, circle: $b.text}
"""


def test_two_generating_nodes_have_figures_and_answers_of_their_own(parts):
    (parts / "both.yaml").write_text(BOTH)
    data = json.loads(invoke("run", "both.yaml", "--json").stdout)
    assert data["outputs"] == {"sign": "stop", "circle": "red"}
    figures = data["generations"]
    assert {name: entry["visual_tokens"]["kept"] for name, entry in figures.items()} == {
        "a/generate": 64, "b/generate": 256,
    }  # fmt: skip
    assert all(entry["ttft_ms"] > 0 for entry in figures.values()), "what the other has computed counts for both"
    assert all(data[key] is None for key in ("visual_tokens", "ttft_ms", "tpot_ms", "new_tokens", "kv_bytes"))
    assert data["nodes"]["b/model"]["cached"] and not data["nodes"]["a/model"]["cached"], "one model is loaded"
    shown = invoke("run", "both.yaml")
    assert shown.stdout == "sign: stop\ncircle: red\n"
    assert "a/generate" in shown.stderr and "b/generate" in shown.stderr


SWITCHED = """\
format: 1
inputs: {prune: {type: bool, default: true}}
nodes:
  a: {type: ./fopru_rank.yaml}
  b: {type: ./baseline.yaml}
  choice: {type: Switch, inputs: {when: $inputs.prune, then: $a.text, otherwise: $b.text}}
  save_a: {type: SaveText, inputs: {text: $a.text, file: a.txt}}
  save_b: {type: SaveText, inputs: {text: $b.text, file: b.txt}}
outputs: {text: $choice, a: $save_a}
"""


@pytest.mark.parametrize(("prune", "kept", "other"), [("true", 64, "save_b"), ("false", 256, "save_a")])
def test_of_a_switch_one_branch_runs_and_its_figures_are_shown(parts, prune, kept, other):
    (parts / "switched.yaml").write_text(SWITCHED)
    result = invoke("run", "switched.yaml", "--json", "--set", f"prune={prune}")
    data = json.loads(result.stdout)
    assert data["visual_tokens"]["kept"] == kept and len(data["generations"]) == 1
    assert f"skipped: {other}: it hangs on" in result.stderr
    assert (data["outputs"]["a"] is None) == (prune == "false")
    assert sorted(path.name for path in Path("fopru-out").glob("*.txt")) == ["a.txt" if prune == "true" else "b.txt"]
    shown = invoke("run", "switched.yaml", "--set", f"prune={prune}")
    assert shown.stdout == "stop\n"
