"""Every family from a folder saved with ``save_pretrained``, through the command line, by the shipped pipelines."""

from __future__ import annotations

import json

import pytest

from tests.lvlm.zoo import ZOO
from tests.test_cli import COMBINED, PIPELINES, invoke


def save(family, folder):
    family.model.save_pretrained(folder)
    if hasattr(family.processor, "save_pretrained"):
        family.processor.save_pretrained(folder)
    else:
        family.processor.image_processor.save_pretrained(folder)
        family.processor.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module", params=ZOO)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    save(ZOO[request.param].build("sdpa"), path)
    return path


def test_the_combined_pipeline_runs_from_a_folder(folder, tmp_path):
    options = ("--set", f"model={folder}", "--set", "generate.max_new_tokens=3", "--out", str(tmp_path))
    result = invoke("run", COMBINED, "--json", *options)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    tokens = data["visual_tokens"]
    assert tokens["encoded"] > tokens["kept"] > tokens["final"] > 0
    assert data["new_tokens"] == 3
    assert (tmp_path / "kept.png").is_file()


def test_the_row_pipeline_runs_from_a_folder(folder, tmp_path):
    options = ("--set", f"model={folder}", "--set", "generate.max_new_tokens=2", "--out", str(tmp_path))
    result = invoke("run", str(PIPELINES / "fopru_row.yaml"), "--json", "--set", "prune.ratio=0.5", *options)
    assert result.exit_code == 0, result.stderr
    tokens = json.loads(result.stdout)["visual_tokens"]
    assert tokens["encoded"] > tokens["kept"] == tokens["final"] > 0


def test_an_unsupported_architecture_is_named_with_those_that_are(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    result = invoke("run", COMBINED, "--set", f"model={tmp_path}", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    for word in ("'bert' is not supported", *ZOO):
        assert word in result.stderr.replace("\n", " ")


def test_models_lists_every_family(tmp_path):
    listed = json.loads(invoke("models", "--json").stdout)["models"]
    assert [one["family"] for one in listed] == list(dict.fromkeys(one["family"] for one in listed))
    assert set(ZOO) == {one["family"] for one in listed}
    for one in listed:
        assert one["checkpoints"] and one["tokens"]
        assert {"pre_projector", "in_llm", "batch", "multi_image", "video"} <= set(one)
    text, page = invoke("models").stdout, (PIPELINES.parent / "docs" / "models.md").read_text()
    for one in listed:
        assert one["family"] in text and f"| `{one['family']}`" in page
