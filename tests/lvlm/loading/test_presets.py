"""Random models of the paper's sizes: the sizes are right, and what does not fit is said before it is made."""

from __future__ import annotations

import accelerate
import pytest
import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.families.registry import served_family
from fopru_graph.lvlm.loading.device import DoesNotFit, check_memory, choose_device, free_memory
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.lvlm.loading.presets import PRESETS, find_preset, preset_config, preset_processor, random_model
from tests import tiny

BILLIONS = {
    "llava-cpu": 0.120,
    "llava-next-cpu": 0.120,
    "llava-1.5-7b": 7.06,
    "llava-1.6-7b": 7.06,
    "llava-1.6-13b": 13.35,
    "llava-next-8b": 8.36,
}


def test_every_preset_has_its_size():
    assert set(BILLIONS) == set(PRESETS)
    for name, billions in BILLIONS.items():
        config = preset_config(find_preset("random:" + name))
        with accelerate.init_empty_weights():
            model = getattr(transformers, served_family(config.model_type, name).auto_class)._from_config(config)
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)
        assert model.config.vision_config.image_size // model.config.vision_config.patch_size == 24


def small(anyres):
    """A preset's configuration in small, so that a test can afford it."""
    config = preset_config(PRESETS["llava-1.6-7b" if anyres else "llava-1.5-7b"])
    for part, sizes in (
        (config.vision_config, {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}),
        (config.text_config, {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}),
    ):
        for key, value in (sizes | {"num_attention_heads": 4, "num_key_value_heads": 4}).items():
            setattr(part, key, value)
    config.text_config.head_dim, config.text_config.vocab_size = 8, 300
    return config


@pytest.mark.parametrize(("anyres", "tokens"), [(False, 576), (True, 576 + 48 * 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_random_model_answers(anyres, tokens, dtype):
    config = small(anyres)
    kind = served_family(config.model_type, "x")
    model = random_model(config, kind.auto_class, torch.device("cpu"), dtype, "sdpa")
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert not any(buffer.is_meta for buffer in model.buffers())
    family = kind(model.eval(), preset_processor(PRESETS["llava-1.6-7b" if anyres else "llava-1.5-7b"]))
    visual = family.project(family.encode([tiny.image(0, 672, 672)]), None)
    assert visual.counts == (tokens,)
    assert visual.embeddings[0].isfinite().all() and visual.embeddings[0].float().std() > 0
    generation = generate(family, visual, ["what?"], max_new_tokens=3)
    assert generation.projected == tokens and len(generation.token_ids[0]) == 3


def test_a_random_model_is_the_same_every_time():
    kind, cpu = "LlavaForConditionalGeneration", torch.device("cpu")
    first, second = (random_model(small(False), kind, cpu, torch.float32, "sdpa").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(UserError, match="no preset 'random:llava-9b'") as caught:
        load_model("random:llava-9b")
    assert "random:llava-cpu" in caught.value.hint


def test_a_model_too_large_is_refused_with_both_figures_before_anything_is_made(monkeypatch):
    monkeypatch.setattr("fopru_graph.lvlm.loading.device.free_memory", lambda _device: 2 * 2**30)
    monkeypatch.setattr("fopru_graph.lvlm.loading.load.random_model", lambda *_: pytest.fail("it was made"))
    with pytest.raises(UserError, match=r"need 26\.3 GiB, cpu has 2\.0 GiB free"):
        load_model("random:llava-1.5-7b", device="cpu", dtype="float32")
    with pytest.raises(UserError, match=r"need 13\.2 GiB, cpu has 2\.0 GiB free"):
        load_model("random:llava-1.5-7b", device="cpu", dtype="bfloat16")


def test_a_checkpoint_too_large_is_refused_likewise(tmp_path, monkeypatch):
    family = tiny.llava()
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    weights = sum(weight.numel() for weight in family.model.parameters()) * 4
    monkeypatch.setattr("fopru_graph.lvlm.loading.device.free_memory", lambda _device: weights - 1)
    with pytest.raises(UserError, match="does not fit"):
        load_model(str(tmp_path), device="cpu")
    monkeypatch.setattr("fopru_graph.lvlm.loading.device.free_memory", lambda _device: weights)
    assert load_model(str(tmp_path), device="cpu").dtype == "float32"


def test_devices_that_are_not_here():
    assert choose_device("cpu").type == "cpu"
    for name, says in (("cuda:99", "not here"), ("toaster", "unknown"), ("cuda:x", "unknown")):
        with pytest.raises(UserError, match=says):
            choose_device(name)
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
    assert 10**8 < free_memory(torch.device("cpu")) < 10**14
    check_memory("a small one", 1, torch.device("cpu"))
    with pytest.raises(DoesNotFit) as caught:
        check_memory("a large one", 10**15, torch.device("cpu"))
    assert (caught.value.needed, caught.value.device) == (10**15, torch.device("cpu"))
