"""Families whose decoder is more than equal layers: run layer by layer they say what the stock forward says."""

from __future__ import annotations

import pytest
import torch
import transformers

from fopru_graph.lvlm.decoding import wide_keys
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import ZOO, everything, gemma3, paligemma, qwen_vl, stock_answer


def in_bfloat16(family):
    family.model.to(torch.bfloat16)
    return family


def with_windows(family):
    """The layers from the third on have a window that is shorter than a prompt."""
    config = family.language_model.config
    config.sliding_window, config.layer_types = 24, ["full_attention"] * 2 + ["sliding_attention"] * 3
    family.language_model.has_sliding_layers = True
    return family


FAMILIES = {
    "qwen2_vl": qwen_vl.qwen2,
    "qwen2_vl, eager": lambda: qwen_vl.qwen2("eager"),
    "qwen2_vl, windows": lambda: with_windows(qwen_vl.qwen2()),
    "qwen2_5_vl": qwen_vl.qwen25,
    "qwen3_vl": qwen_vl.qwen3,
    "qwen3_vl, bfloat16": lambda: in_bfloat16(qwen_vl.qwen3()),
    "gemma3, windows": gemma3.build,
    "gemma3, eager, windows": lambda: gemma3.build("eager"),
    "gemma3, as long as its window": lambda: gemma3.build(window=512),
    "paligemma": paligemma.build,
    "paligemma, eager": lambda: paligemma.build("eager"),
    "paligemma 2, windows": lambda: paligemma.build("eager", text=transformers.Gemma2Config, sliding_window=8, seed=93),
}
SIZES = ((112, 112), (150, 60), (60, 150))
BATCHES = {
    "one": (["what?"], 1),
    "padded, two images in one prompt": (["<image>what?", "a longer <image> question <image> here"], 3),
}
CUTS = {"none": [], "chain": [(2, 0.7), (2, 0.7), (3, 0.5)]}


@pytest.fixture(autouse=True)
def _keys_of_the_model(monkeypatch):
    """Keys in the model's type on any machine: in float32, where that is faster, bfloat16 rounds otherwise."""
    monkeypatch.setattr(wide_keys, "float32_is_faster", lambda *_: False)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return FAMILIES[name]()


def pictures(count):
    return [tiny.image(i, *SIZES[i]) for i in range(count)]


def kept(family, given, ratio):
    features = family.encode(given)
    selection = RankPrune()(significance=Significance()(features=features), ratio=ratio)
    return family.project(features, Reorder()(selection=selection))


def check_loops(family, tokens, prompts, cuts):
    pruners = [fastv(*cut) for cut in cuts]
    thin, expected = run(family, tokens, prompts, pruners, loop="thin")
    family.forget()
    segments, logits = run(family, tokens, prompts, pruners)
    assert segments.loop == "segments" and torch.equal(logits, expected)
    family.forget()
    static, nearly = run(family, tokens, prompts, pruners, loop="static")
    family.forget()
    assert (nearly - expected).abs().max() < (1e-4 if family.dtype == torch.float32 else 0.05 * expected.abs().max())
    for other in (segments, static):
        assert (other.kv_lengths, other.visual_per_layer) == (thin.kv_lengths, thin.visual_per_layer)
        assert all(torch.equal(a, b) for a, b in zip(other.kept, thin.kept, strict=True))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cuts", CUTS)
def test_segments_are_the_stock_forward_bit_for_bit_and_fixed_shapes_nearly(family, batch, cuts):
    prompts, count = BATCHES[batch]
    check_loops(family, kept(family, pictures(count), 0.75), prompts, CUTS[cuts])


@pytest.mark.parametrize("batch", BATCHES)
def test_with_all_tokens_segments_are_the_stock_generate_bit_for_bit(name, family, batch):
    """With a sliding window nearly: stock's cache forgets what is outside of it, ours hides it, and sums differ.

    In bfloat16 nearly too: the last layer runs for one position, which some CPUs multiply by other kernels.
    """
    prompts, count = BATCHES[batch]
    row = ZOO[name.split(",")[0].removesuffix(" 2")]
    _, expected = stock_answer(row, family, prompts, pictures(count), STEPS)
    generation, logits = run(family, everything(family, pictures(count)), prompts)
    assert generation.loop == "segments"
    if "windows" in name:
        assert (logits - expected).abs().max() < 1e-5
    elif family.dtype == torch.bfloat16:
        assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    else:
        assert torch.equal(logits, expected)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("build", qwen_vl.BUILD.values(), ids=qwen_vl.BUILD)
def test_videos_run_as_pictures_do(build, cuts):
    family = build()
    first, second = (Video(tuple(image.picture for image in pictures(1) * n), str(n)) for n in (6, 3))
    check_loops(family, kept(family, [first, second], 0.75), ["what?", "and what happens here?"], CUTS[cuts])


def test_a_step_that_is_shared_takes_each_prompts_own_positions():
    """The answer begins at another position after each picture, though both prompts fit one step."""
    family = qwen_vl.qwen2()
    for image in pictures(3):
        tokens = everything(family, [image])
        _, expected = run(family, tokens, ["what?"], loop="segments")
        family.last_prompt = None
        _, logits = run(family, tokens, ["what?"], loop="static")
        assert (logits - expected).abs().max() < 1e-4
    assert len(family.steps) == 1
