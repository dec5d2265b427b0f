"""Flash kernels, by a stand-in of their package: what they answer is what sdpa answers."""

from __future__ import annotations

import pytest

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.attention_profile import attention_profile
from fopru_graph.lvlm.loading.load import load_model
from tests import tiny
from tests.lvlm import flash
from tests.lvlm.test_matrix import BATCHES, PIPELINES, pictures, run, tokens_of
from tests.lvlm.zoo import ZOO

BIDIRECTIONAL = ("gemma3", "paligemma")  # transformers refuses flash kernels, which would see images causally
FAMILIES = [name for name in ZOO if name not in BIDIRECTIONAL]


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    flash.install(monkeypatch)


def check_equal(row, kernel, batch, pipeline):
    prompts, count = BATCHES[batch]
    pruner, ratio, relative = PIPELINES[pipeline]
    cuts = [(row.first + layer, share) for layer, share in relative]
    answers = []
    for attention in (kernel, "sdpa"):
        family = row.build(attention)
        assert family.tower.config._attn_implementation == attention
        answers.append(run(family, tokens_of(family, pictures(row, count), pruner, ratio), prompts, cuts))
    (ours, logits), (expected, wanted) = answers
    assert (logits - wanted).abs().max() < 1e-4
    assert (ours.token_ids, ours.kv_lengths) == (expected.token_ids, expected.kv_lengths)
    assert ours.visual_per_layer == expected.visual_per_layer


@pytest.mark.parametrize("batch", ["two images", "batch of two sizes"])
@pytest.mark.parametrize("name", FAMILIES)
def test_flash_attention_answers_as_sdpa_does(name, batch):
    """Padded too, and ragged where pictures of different sizes keep different numbers of tokens."""
    check_equal(ZOO[name], "flash_attention_2", batch, "fopru_fastv")


@pytest.mark.parametrize("pipeline", ["baseline", "fastv"])
@pytest.mark.parametrize("kernel", flash.NAMES)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_every_name_of_a_flash_kernel_answers_as_sdpa_does(name, kernel, pipeline):
    check_equal(ZOO[name], kernel, "batch of two sizes", pipeline)


@pytest.mark.parametrize("name", ["mistral3", "qwen2_5_vl", "smolvlm"])
def test_the_profile_of_a_tower_with_flash_kernels_is_that_of_sdpa(name):
    profiles = [attention_profile(ZOO[name].build(kernel), tiny.image()) for kernel in ("flash_attention_2", "sdpa")]
    for ours, expected in zip(*(profile.received for profile in profiles), strict=True):
        assert (ours is None) == (expected is None)
        assert ours is None or (ours - expected).abs().max() < 1e-6


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_families_whose_images_see_themselves_are_refused_with_what_to_do(name, tmp_path):
    family = ZOO[name].build("sdpa")
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not support Flash Attention") as refused:
        load_model(str(tmp_path), "cpu", attention="flash_attention_2")
    assert refused.value.hint == "choose attention: sdpa"
