"""Opening checkpoints: what is right loads, what is wrong ends in one clear sentence."""

from __future__ import annotations

import json
import sys

import accelerate
import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.loading.load import load_model
from tests import tiny


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | changes))


def test_a_folder_loads_with_its_weights(folder):
    handle = load_model(str(folder), device="cpu")
    original = tiny.llava()
    assert handle.dtype == "float32" and handle.device == "cpu"
    for name, weight in original.model.state_dict().items():
        assert torch.equal(handle.family.model.state_dict()[name], weight)
    features = [f.encode([tiny.image()]).tiles[0].features for f in (handle.family, original)]
    assert torch.equal(*features)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_as_asked(folder, dtype):
    assert load_model(str(folder), device="cpu", dtype=dtype).dtype == dtype


def test_a_device_map_through_accelerate_gives_the_same_answer(folder):
    from fopru_graph.lvlm.decoding.generate import generate
    from fopru_graph.pruning.in_llm import last_token_attention
    from fopru_graph.values import InLLMPruner

    answers = []
    for options in ({"device": "cpu"}, {"device": "cpu", "device_map": "auto"}):
        family = load_model(str(folder), dtype="float32", **options).family
        tokens = family.project(family.encode([tiny.image()]), None)
        pruners = [InLLMPruner(last_token_attention, 2, 0.5)]
        answers.append(generate(family, tokens, ["hello"], pruners, max_new_tokens=5))
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].kv_lengths == answers[1].kv_lengths


def shard(folder):
    tiny.llava().model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_load(folder):
    assert len(shard(folder)) > 1
    assert load_model(str(folder), device="cpu").dtype == "float32"


def remove_config(folder):
    (folder / "config.json").unlink()


def damage_config(folder):
    (folder / "config.json").write_text("{")


def only_pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def drop_a_shard(folder):
    shard(folder)[0].unlink()


def damage_the_index(folder):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


def other_architecture(folder):
    edit(folder / "config.json", model_type="bert")


def needs_code(folder):
    edit(folder / "config.json", auto_map={"AutoModel": "modeling.Evil"})


def truncate_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def weights_are_text(folder):
    (folder / "model.safetensors").write_text("hello")


def lose_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.popitem()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def wrong_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 32
    (folder / "config.json").write_text(json.dumps(config))


def no_processor(folder):
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (remove_config, "no config.json"),
        (damage_config, "config.json cannot be read"),
        (only_pickled, "no safetensors in the folder .only pytorch_model.bin"),
        (no_weights, "no safetensors in the folder .no weights"),
        (drop_a_shard, "1 of .. weight shards are missing: model-00001"),
        (damage_the_index, "index.json cannot be read"),
        (other_architecture, "architecture 'bert' is not supported"),
        (needs_code, "needs its own code"),
        (truncate_weights, "does not load"),
        (weights_are_text, "does not load"),
        (lose_a_weight, "1 weights are missing"),
        (wrong_shape, "missing or of a wrong shape|does not load"),
        (no_processor, "does not load"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoilt_folder_ends_in_one_sentence(folder, spoil, says):
    spoil(folder)
    with pytest.raises(UserError, match=says) as caught:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["no/such/place", "../up", "just-a-name", ""])
def test_what_is_neither_folder_nor_hub_name_is_refused(name):
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        load_model(name)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/nothing-here: cannot be fetched from the hub") as caught:
        load_model("nobody/nothing-here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_refused(folder, device):
    with pytest.raises(UserError, match="device"):
        load_model(str(folder), device=device)


def answer(family):
    from fopru_graph.lvlm.decoding.generate import generate
    from fopru_graph.pruning.in_llm import last_token_attention
    from fopru_graph.values import InLLMPruner

    tokens = family.project(family.encode([tiny.image()]), None)
    return generate(family, tokens, ["hello"], [InLLMPruner(last_token_attention, 2, 0.5)], max_new_tokens=5)


@pytest.mark.parametrize("anyres", [False, True])
def test_offloaded_weights_give_the_same_answer(anyres):
    """As device_map: auto does with what the GPU has no room for: weights come for the time of a call only."""
    expected = answer(tiny.llava(anyres=anyres))
    family = tiny.llava(anyres=anyres)
    accelerate.cpu_offload(family.model, execution_device=torch.device("cpu"))
    assert any(weight.is_meta for weight in family.model.parameters())
    found = answer(family)
    assert found.token_ids == expected.token_ids and found.kv_lengths == expected.kv_lengths
    assert family.device == torch.device("cpu")


def test_quantisation_without_its_package_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="does not load") as caught:
        load_model(str(folder), device="cpu", quantization="4bit")
    assert "bitsandbytes" in caught.value.message and "install" in caught.value.hint


def test_quantisation_is_transformers_own(folder, monkeypatch):
    seen = {}

    def from_pretrained(*_args, **options):
        seen.update(options)
        raise OSError("far enough")

    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", from_pretrained)
    with pytest.raises(UserError, match="far enough"):
        load_model(str(folder), device="cpu", quantization="8bit")
    assert seen["quantization_config"].load_in_8bit and seen["use_safetensors"] is True


def test_offline_is_honoured_and_no_token_is_read_or_shown(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(UserError) as caught:
        load_model("nobody/nothing")
    shown = capsys.readouterr()
    assert "hf_secret" not in str(caught.value) + str(caught.value.hint) + shown.out + shown.err
    assert "cannot be fetched" in caught.value.message
