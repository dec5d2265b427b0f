"""SaveTokens and LoadTokens in a pipeline: the file answers like the pipeline that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fopru_graph.graph import Executor, Graph, NodeError
from fopru_graph.serving import ENGINES, TARGETS, load_tokens

PIPELINE = (Path(__file__).parents[2] / "pipelines" / "fopru_rank.yaml").read_text(encoding="utf-8")
SAVE = "  save: {type: SaveTokens, inputs: {model: $model, tokens: $project, prompt: $inputs.prompt}}\n"
SAVING = Graph.loads(PIPELINE.replace("outputs:", f"{SAVE}outputs:"))
READING = """
format: 1
inputs: {file: {type: path}}
nodes:
  model:    {type: LoadModel}
  tokens:   {type: LoadTokens, inputs: {model: $model, file: $inputs.file}}
  generate: {type: LLMGenerate, inputs: {model: $model, tokens: $tokens, prompt: what does the text say ?}}
outputs: {text: $generate.text}
"""


def save(tmp_path: Path, **sets: object) -> Path:
    settings = {f"save.{name}": value for name, value in sets.items()}
    result = Executor().run(SAVING, to="save", out=tmp_path, sets=settings)
    return Path(result.by_node["save"]["output"])


def test_saved_tokens_answer_without_a_picture(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "tokens.safetensors"
    assert load_tokens(path).header.images[0].ratio == 0.25
    result = Executor().run(Graph.loads(READING), sets={"file": str(path)})
    assert result["text"] == "stop"


def test_a_changed_file_is_read_again(tmp_path):
    path = save(tmp_path)
    graph = Graph.loads(READING)
    key = Executor().plan(graph, sets={"file": str(path)}).steps["tokens"].key
    path.rename(tmp_path / "moved")
    assert Executor().plan(graph, sets={"file": str(tmp_path / "moved")}).steps["tokens"].key == key
    save(tmp_path, prompt="what colour is the star?")
    assert Executor().plan(graph, sets={"file": str(path)}).steps["tokens"].key != key


def test_the_file_is_named_by_the_target_or_as_asked(tmp_path):
    assert save(tmp_path, to="vllm") == tmp_path / TARGETS["vllm"]
    (message,) = json.loads((tmp_path / "vllm.json").read_text())["messages"]
    assert [part["type"] for part in message["content"]] == ["image_embeds", "text"]
    assert save(tmp_path, to="vllm-offline", file="mine.safetensors") == tmp_path / "mine.safetensors"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.safetensors", "vllm.json"]


def test_a_refusal_names_the_node_and_the_reason(tmp_path):
    with pytest.raises(NodeError, match=rf"save .*{ENGINES['sglang'].refuses['llava']}"):
        save(tmp_path, to="sglang")
    with pytest.raises(NodeError, match="one after the other"):
        save(tmp_path, to="vllm", positions="original")
    assert list(tmp_path.iterdir()) == []
