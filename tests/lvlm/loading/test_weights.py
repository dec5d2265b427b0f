"""Weights that are not the model's: adapters and what has no place are refused, other parts named, nothing dropped."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.modules import count_weights
from fopru_graph.lvlm.loading.load import load_model, model_identity
from tests import tiny
from tests.lvlm.loading.test_load import edit, shard
from tests.lvlm.zoo import ZOO

QUERY = "language_model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    family = tiny.llava()
    family.model.save_pretrained(path)
    family.processor.save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def added(*names):
    return lambda weights: weights | {name: torch.zeros(2) for name in names}


def write_adapter(folder):
    content = {"peft_type": "LORA", "base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}
    (folder / "adapter_config.json").write_text(json.dumps(content))


@pytest.fixture
def unloaded(monkeypatch):
    """Loading any weights fails the test."""
    load = "transformers.LlavaForConditionalGeneration.from_pretrained"
    monkeypatch.setattr(load, lambda *_, **__: pytest.fail("weights were loaded"))


def test_an_adapter_alone_says_how_to_merge_it_and_with_what(tmp_path, unloaded):
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"never read")
    for ask in (load_model, model_identity):
        with pytest.raises(
            UserError, match=r"is an adapter \(LORA\) of llava-hf/llava-1\.5-7b-hf, not a model"
        ) as caught:
            ask(str(tmp_path), device="cpu")
        assert "merge_and_unload" in caught.value.hint and "llava-hf/llava-1.5-7b-hf" in caught.value.hint


def test_an_adapter_beside_the_weights_is_not_left_out_in_silence(folder, unloaded):
    write_adapter(folder)
    with pytest.raises(UserError, match="lies beside the weights and would not be applied") as caught:
        load_model(str(folder), device="cpu")
    assert "merge_and_unload" in caught.value.hint and "take adapter_config.json away" in caught.value.hint


@pytest.mark.parametrize(("beside", "says"), [(False, "is an adapter"), (True, "lies beside the weights")])
def test_an_adapter_on_the_hub_is_refused_likewise(tmp_path, monkeypatch, beside, says):
    write_adapter(tmp_path)
    if beside:
        (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _name, file, **_: str(tmp_path / file))
    with pytest.raises(UserError, match=says):
        load_model("someone/llava-lora", device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        added(f"{QUERY}.lora_A.default.weight", f"{QUERY}.lora_B.default.weight"),
        added(f"{QUERY}.lora_A.weight"),
        lambda weights: {name.replace("q_proj.", "q_proj.base_layer."): weight for name, weight in weights.items()},
        lambda weights: {f"base_model.model.{name}": weight for name, weight in weights.items()},
        added("multi_modal_projector.modules_to_save.default.linear_1.weight"),
    ],
)
def test_weights_of_an_adapter_are_refused_by_their_names(folder, change, unloaded):
    rewrite(folder, change)
    with pytest.raises(UserError, match="belong to an adapter that was not merged") as caught:
        load_model(str(folder), device="cpu")
    assert "merge" in caught.value.hint


def test_weights_of_an_adapter_in_shards_are_refused_by_the_index(folder, unloaded):
    first = shard(folder)[0]
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map=names | {f"{QUERY}.lora_A.weight": first.name})
    with pytest.raises(UserError, match="belong to an adapter"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        f"{QUERY}.bias",
        f"{QUERY}.weight_scale",
        "language_model.model.layers.9.mlp.up_proj.weight",
        "vision_tower.encoder.layers.4.mlp.fc1.weight",
        "multi_modal_projector.linear_1.extra",
    ],
)
def test_more_weights_than_a_part_takes_are_refused(folder, name):
    rewrite(folder, added(name))
    with pytest.raises(UserError, match="1 weights have no place in the model that config.json describes") as caught:
        load_model(str(folder), device="cpu")
    assert name.rpartition(".")[2] in caught.value.message and "config.json" in caught.value.hint


def test_weights_of_other_parts_are_named(folder):
    rewrite(folder, added("audio_tower.conv.weight", "audio_tower.norm.weight"))
    with pytest.warns(UserWarning, match=r"2 weights of parts that the model does not have are not used, e\.g\. audio"):
        load_model(str(folder), device="cpu")


def test_what_is_computed_anew_is_left_over_in_silence(folder):
    buffers = ("vision_tower.embeddings.position_ids", "language_model.model.layers.0.self_attn.rotary_emb.inv_freq")
    rewrite(folder, added(*buffers, "language_model.model.rotary.inv_freq"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_a_quantised_checkpoint_without_its_package_is_one_sentence(folder, method):
    edit(folder / "config.json", quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    with pytest.raises(UserError, match="does not load") as caught:
        load_model(str(folder), device="cpu")
    assert "install" in caught.value.hint and "attention" not in caught.value.hint


@pytest.mark.parametrize("name", ["gemma3", "paligemma", "qwen2_vl"])
def test_an_output_head_that_is_the_embeddings_needs_memory_once(tmp_path, monkeypatch, name):
    family = ZOO[name].build("sdpa")
    config = family.model.config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    model = type(family.model)(config)
    needed = sum(weight.numel() for weight in model.parameters()) * 4  # each once, however many names it has
    assert model.lm_head.weight is model.get_input_embeddings().weight
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: config)
    asked = []

    def check(_name, size, _device):
        asked.append(size)
        raise UserError("far enough")

    monkeypatch.setattr("fopru_graph.lvlm.loading.load.check_memory", check)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="far enough"):
        load_model(str(tmp_path), device="cpu")
    assert asked == [needed]


def test_a_quantised_matrix_counts_by_its_shape():
    matrix = torch.nn.Linear(8, 6)
    matrix.weight = torch.nn.Parameter(torch.zeros(24, 1, dtype=torch.uint8), requires_grad=False)  # two in a byte
    assert count_weights(matrix) == 48
