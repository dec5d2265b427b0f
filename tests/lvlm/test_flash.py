"""Flash kernels, by a stand-in of their package: what they answer is what sdpa answers."""

from __future__ import annotations

import functools

import pytest
import torch
import transformers
import transformers.modeling_flash_attention_utils as flash_utils

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.families.attention_profile import attention_profile
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.load import load_model
from tests import tiny
from tests.lvlm import flash
from tests.lvlm.decoding.test_windows import under_stock_generate
from tests.lvlm.test_invariants import BATCHES as PADDED
from tests.lvlm.test_invariants import fastv, some
from tests.lvlm.test_invariants import run as answer
from tests.lvlm.test_matrix import BATCHES, PIPELINES, pictures, run, tokens_of
from tests.lvlm.zoo import ZOO, mistral3

BIDIRECTIONAL = ("gemma3", "paligemma")  # transformers refuses flash kernels, which would see images causally
FAMILIES = [name for name in ZOO if name not in BIDIRECTIONAL]


DECODERS = {
    "llama": {"layers": 4},
    "mistral": {"text": "mistral", "layers": 4},
    "qwen2, some layers with a window": {"text": "qwen2", "layers": 4, "sliding_window": 80},
    "qwen3": {"text": "qwen3", "layers": 4, "kv_heads": 1},
}
CUTS = {"none": [], "two": [(1, 0.5), (3, 0.5)]}


@pytest.fixture(autouse=True)
def given(monkeypatch):
    """What the kernels were called with: the name of each call, and the position ids that were searched for packing."""
    calls, positions = [], []
    for name in ("flash_attn_func", "flash_attn_varlen_func"):
        monkeypatch.setattr(flash, name, noting(getattr(flash, name), lambda name=name: calls.append(name)))
    packed = flash_utils._is_packed_sequence
    monkeypatch.setattr(
        flash_utils, "_is_packed_sequence", lambda ids, batch: (positions.append(ids), packed(ids, batch))[1]
    )
    flash.install(monkeypatch)
    return calls, positions


def noting(kernel, note):
    @functools.wraps(kernel)
    def noted(*args, **options):
        note()
        return kernel(*args, **options)

    return noted


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


# The kernels for whole prompts run where nothing is hidden: gaps in positions are no packed sequences.


@pytest.mark.parametrize("loop", ["thin", "auto"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_does_not_look_like_packed_sequences(name, loop, given):
    row = ZOO[name]
    family = row.build("flash_attention_2")
    tokens = tokens_of(family, pictures(row, 1), None, 1.0)
    calls, positions = given
    calls.clear(), positions.clear()
    generate(family, tokens, ["what?"], [fastv(row.first, 0.5)], 3, loop=loop)
    assert set(calls) == {"flash_attn_func"} and len(calls) == 3 * len(family.layers)
    searched = [ids for ids in positions if ids is not None and ids.shape[-1] > 1]
    assert len(searched) <= (row.first if loop == "thin" else 0 if fits_segments(family) else row.first)


def test_under_stock_generate_neither(given):
    family = tiny.llava(attention="flash_attention_2", seed=70)
    prompt = build_prompt(family, ["what?"], some(family, 1, 1.0))
    given[0].clear()
    under_stock_generate(family, prompt, [(2, 0.5)])
    assert set(given[0]) == {"flash_attn_func"}


def test_a_layer_that_computes_with_positions_keeps_them():
    """Ministral 3 scales queries by their positions, from the first few on here."""
    answers = []
    for attention in ("flash_attention_2", "sdpa"):
        family = mistral3.build(attention, text=transformers.Ministral3Config)
        family.language_model.config.rope_parameters["original_max_position_embeddings"] = 8
        answers.append(run(family, tokens_of(family, [tiny.image(0, 130, 64)], None, 1.0), ["what?"], [(2, 0.5)]))
    assert (answers[0][1] - answers[1][1]).abs().max() < 1e-4
    assert answers[0][0].token_ids == answers[1][0].token_ids


# Segments, with caches in place


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("batch", ["one", "padded batch, unequal images"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_segments_under_flash_kernels_are_the_thin_loop_bit_for_bit(decoder, batch, cuts):
    family, sdpa = (tiny.llava(**DECODERS[decoder], attention=kind, seed=71) for kind in ("flash_attention_2", "sdpa"))
    prompts, images = PADDED[batch]
    tokens = some(family, sum(images), 0.75)
    pruners = [fastv(*cut) for cut in cuts]
    segments, logits = answer(family, tokens, prompts, pruners)
    assert segments.loop == "segments"
    family.forget()
    thin, expected = answer(family, tokens, prompts, pruners, loop="thin")
    assert torch.equal(logits, expected)
    assert (segments.token_ids, segments.kv_lengths) == (thin.token_ids, thin.kv_lengths)
    other, nearly = answer(sdpa, some(sdpa, sum(images), 0.75), prompts, pruners, loop="segments")
    assert (logits - nearly).abs().max() < 1e-4
    assert (segments.token_ids, segments.visual_per_layer) == (other.token_ids, other.visual_per_layer)


def test_a_second_question_under_flash_kernels_runs_what_is_new():
    family, sdpa = (tiny.llava(attention=kind, seed=72) for kind in ("flash_attention_2", "sdpa"))
    answers = []
    for model in (family, sdpa):
        tokens = some(model, 1, 0.75)
        answer(model, tokens, ["what is it?"])
        answers.append(answer(model, tokens, ["what is at?"]))
    assert answers[0][0].reused == answers[1][0].reused > 0
    assert (answers[0][1] - answers[1][1]).abs().max() < 1e-4


def test_fixed_shapes_are_refused_under_flash_kernels():
    family = tiny.llava(attention="flash_attention_2", seed=73)
    with pytest.raises(UserError, match="hides keys by masks") as refused:
        answer(family, some(family, 1, 1.0), ["x"], loop="static")
    assert refused.value.hint == "use loop: auto"
