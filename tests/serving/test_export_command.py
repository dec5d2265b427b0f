"""``fopru-graph export``: files, facts, exit codes; nothing is generated and nothing is left half written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.serving import ENGINES, load_tokens
from tests.serving.engine import as_vllm_reads
from tests.test_cli import invoke

STOCK = """
format: 1
nodes:
  model: {type: LoadModel}
  image: {type: LoadImage, inputs: {path: demo:street-sign}}
  stock: {type: StockGenerate, inputs: {model: $model, image: $image, prompt: a}}
outputs: {text: $stock.text}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def exported(*arguments: str):
    result = invoke("export", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: str):
    """The message and hint of an export that is refused as bad usage."""
    result = invoke("export", *arguments, "--json")
    assert result.exit_code == 2
    assert list(Path().iterdir()) == []
    error = json.loads(result.stdout)["error"]
    return f"{error['message']} | {error['hint']}"


def test_a_chat_request_holds_the_share_that_was_asked_for():
    told = exported("fopru_rank", "--to", "vllm", "-o", "out.json", "--ratio", "0.5", "--set", "prompt=what is it?")
    assert told == {
        "file": "out.json",
        "to": "vllm",
        "bytes": Path("out.json").stat().st_size,
        "model": "demo",
        "family": "llava",
        "positions": "renumbered",
        "visual_tokens": {"encoded": 256, "kept": 128, "images": 1},
    }
    body = json.loads(Path("out.json").read_text())
    image, text = body["messages"][0]["content"]
    assert as_vllm_reads(image["image_embeds"]).shape[0] == 128
    assert text == {"type": "text", "text": "what is it?"}


def test_the_path_is_the_result_and_the_figures_are_not():
    result = invoke("export", "fopru_rank")
    assert (result.exit_code, result.stdout) == (0, "tokens.safetensors\n")
    assert "64 of 256 visual tokens" in result.stderr
    assert load_tokens("tokens.safetensors").header.prompt == "what does the text say ?"


def test_positions_of_the_pipeline_are_those_of_the_file():
    assert exported("fopru_rank", "--set", "generate.positions=original")["positions"] == "original"
    assert exported("fopru_rank", "--positions", "rebased")["positions"] == "rebased"
    assert load_tokens("tokens.safetensors").position_ids.max() > 63


def test_pruning_inside_the_language_model_is_refused_unless_it_is_left_out():
    assert "also prunes inside the language model (fastv), which vLLM" in refused("fopru_fastv", "--to", "vllm")
    told = exported("fopru_fastv", "--to", "vllm", "--set", "prune.ratio=0.25", "--set", "generate.pruners=null")
    assert told["visual_tokens"]["kept"] == 64


def test_a_pruner_inside_the_language_model_can_be_left_out():
    told = exported("fopru_fastv", "--to", "vllm", "--ratio", "0.25", "--without", "fastv")
    assert told["visual_tokens"]["kept"] == 64


def test_a_file_for_own_programs_says_that_pruning_inside_is_not_in_it():
    result = invoke("export", "fopru_fastv")
    assert result.exit_code == 0
    assert "fastv would prune there" in result.stderr


def test_what_cannot_be_exported_is_one_sentence_and_no_file():
    assert "choose safetensors, vllm" in refused("fopru_rank", "--to", "ollama")
    assert "choose renumbered, original" in refused("fopru_rank", "--positions", "other")
    assert ENGINES["sglang"].refuses["llava"] in refused("fopru_rank", "--to", "sglang")
    assert "one after the other" in refused("fopru_rank", "--to", "vllm", "--positions", "original")
    assert "baseline has no ratio to set" in refused("baseline", "--ratio", "0.5")
    assert "the tokens of one ratio" in refused("fopru_rank", "--ratio", "0.5,0.25")
    assert "a batch of prompts" in refused("fopru_rank", "--set", "generate.prompt:=[a, b]")
    assert "No such file" in refused("fopru_rank", "-o", "nowhere/tokens.safetensors")
    (Path("..") / "stock.yaml").write_text(STOCK)
    assert "takes pictures, not tokens" in refused("../stock.yaml")


def test_a_missing_picture_is_the_nodes_error():
    result = invoke("export", "fopru_rank", "--set", "image=none.png", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["node"] == "image"


def test_a_full_disk_is_one_sentence():
    result = invoke("export", "fopru_rank", "-o", "/dev/full", "--json")
    assert result.exit_code == 1
    assert "No space left" in json.loads(result.stdout)["error"]["message"]


def test_help_of_export_loads_no_torch():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fopru_graph.cli import app\n"
        "assert CliRunner().invoke(app, ['export', '--help']).exit_code == 0\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])
