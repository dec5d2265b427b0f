"""Sliding windows and in-LLM pruning: under the stock generate too, windows count positions of the whole prompt."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import DynamicCache, StaticCache

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.hooks import pruned
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.compat import cache_argument
from tests import tiny
from tests.lvlm import flash
from tests.lvlm.reference import answer_by_masking
from tests.lvlm.test_invariants import STEPS, everything, fastv, run
from tests.lvlm.zoo import ZOO
from tests.lvlm.zoo import everything as all_tokens

CUTS = [(1, 0.5), (3, 0.5)]
LENGTH = 40  # tokens of the prompt "what?" about one picture
WINDOWS = [5, LENGTH - 1, LENGTH, LENGTH + 2, 200]  # shorter, near, longer
PADDED = ["a", "a longer question"]
CACHES = {
    "generate's own": lambda _config: None,
    "sliding layers": lambda config: DynamicCache(config=config),
    "full layers": lambda _config: DynamicCache(),
}


def under_stock_generate(family, prompt, cuts, cache=None, **options):
    """Ids and logits (B, steps, V) of the stock generate inside a pruned block."""
    if cache is not None:
        options[cache_argument()] = cache
    if "input_ids" not in options:
        options["inputs_embeds"] = prompt.embeds
    with pruned(family, Cuts(family, [fastv(*cut) for cut in cuts], prompt)):
        output = family.model.generate(
            attention_mask=prompt.attention_mask,
            max_new_tokens=STEPS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
    return output.sequences[:, -STEPS:].tolist(), torch.stack(output.logits, 1)


@functools.cache
def by_masking(window):
    eager = tiny.llava("mistral", sliding_window=window, attention="eager", seed=41)
    prompt = build_prompt(eager, ["what?"], everything(eager, 1))
    assert prompt.lengths == (LENGTH,)
    return answer_by_masking(eager, prompt.embeds[0], prompt.visual[0], CUTS, STEPS, window)


@pytest.mark.parametrize(("cache", "attention"), [*((cache, "sdpa") for cache in CACHES), ("generate's own", "eager")])
@pytest.mark.parametrize("window", WINDOWS)
def test_dropping_equals_masking_by_position_whatever_the_cache(window, cache, attention):
    family = tiny.llava("mistral", sliding_window=window, attention=attention, seed=41)
    prompt = build_prompt(family, ["what?"], everything(family, 1))
    given = CACHES[cache](family.language_model.config)
    ids, logits = under_stock_generate(family, prompt, CUTS, given)
    expected, wanted, hidden = by_masking(window)
    assert ids == [expected]
    assert (logits[0] - wanted).abs().max() < 1e-4
    if given is not None:
        assert [len(layer.keys[0, 0]) for layer in given.layers] == [LENGTH + STEPS - 1 - len(gone) for gone in hidden]


@pytest.mark.parametrize("window", [5, 40])
@pytest.mark.parametrize(
    ("text", "prompts"), [("mistral", ["what?", "a longer question"]), ("qwen2", ["x"]), ("qwen2", ["a", "longer"])]
)
def test_padded_batches_and_layers_of_both_kinds_answer_as_our_own_loop(text, prompts, window):
    """Qwen2 has windows from its third layer on."""
    family = tiny.llava(text, sliding_window=window, seed=42)
    tokens = everything(family, len(prompts))
    generation, expected = run(family, tokens, prompts, [fastv(*cut) for cut in CUTS])
    ids, logits = under_stock_generate(family, build_prompt(family, prompts, tokens), CUTS)
    assert ids == [list(answer) for answer in generation.token_ids]
    assert (logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("window", [10, 24])
def test_gemma_whose_windows_are_masked_outside_of_its_decoder(window):
    family = ZOO["gemma3"].build("sdpa")
    family.language_model.config.sliding_window = window
    tokens = all_tokens(family, [tiny.image()])
    generation, expected = run(family, tokens, ["what?"], [fastv(2, 0.5)])
    prompt = build_prompt(family, ["what?"], tokens)
    inputs = {"input_ids": prompt.input_ids, **ZOO["gemma3"].stock(family, [tiny.image()])}
    ids, logits = under_stock_generate(family, prompt, [(2, 0.5)], **inputs, **ZOO["gemma3"].extra(family, prompt))
    assert ids == [list(answer) for answer in generation.token_ids]
    assert (logits - expected).abs().max() < 1e-4


def test_layers_that_cut_nothing_keep_the_cache_that_stock_gives_them():
    family = tiny.llava("mistral", sliding_window=10, seed=43)
    prompt = build_prompt(family, ["x"], everything(family, 1))
    cache = DynamicCache(config=family.language_model.config)
    under_stock_generate(family, prompt, [], cache)
    assert all(layer.keys.shape[2] == 9 for layer in cache.layers)


# What cannot be exact is refused before a layer runs.


def check_refused(family, prompt, match, hint, cuts=CUTS, **options):
    ran = []
    hooks = [layer.register_forward_pre_hook(lambda *_: ran.append(1)) for layer in family.layers]
    with pytest.raises(UserError, match=match) as refused:
        under_stock_generate(family, prompt, cuts, **options)
    assert hint in refused.value.hint and not ran
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("window", [None, 10])
def test_caches_of_a_fixed_length_are_refused(window):
    family = tiny.llava("mistral", sliding_window=window, seed=44)
    prompt = build_prompt(family, ["x"], everything(family, 1))
    config = family.language_model.config
    for options in (
        {"cache_implementation": "static"},
        {"cache_implementation": "offloaded_static"},
        {"cache": StaticCache(config=config, max_cache_len=200)},
    ):
        check_refused(family, prompt, "StaticCache", "DynamicCache", **options)


def test_chunks_beams_and_a_cache_with_tokens_are_refused():
    family = tiny.llava("mistral", sliding_window=10, seed=45)
    prompt = build_prompt(family, ["x"], everything(family, 1))
    check_refused(family, prompt, "2 × 36 tokens", "beams", num_beams=2)
    cuts = Cuts(family, [fastv(2, 0.5)], prompt)
    with pruned(family, cuts), pytest.raises(UserError, match="was given 1 × 7 tokens"):
        family.language_model(inputs_embeds=prompt.embeds[:, :7])
    cache = DynamicCache(config=family.language_model.config)
    family.language_model(inputs_embeds=prompt.embeds, **{cache_argument(): cache})
    with pruned(family, cuts), pytest.raises(UserError, match="36 tokens are in the cache"):
        family.language_model(inputs_embeds=prompt.embeds, **{cache_argument(): cache})


# Flash kernels count a window's tokens, so the mask hides what has left it.


@pytest.mark.parametrize("window", [LENGTH, LENGTH + 2, 200])
@pytest.mark.parametrize("loop", ["stock", "thin", "segments"])
def test_flash_kernels_are_exact_where_the_prompt_is_within_the_window(monkeypatch, window, loop):
    flash.install(monkeypatch)
    family = tiny.llava("mistral", sliding_window=window, attention="flash_attention_2", seed=41)
    tokens = everything(family, 1)
    if loop == "stock":
        ids, logits = under_stock_generate(family, build_prompt(family, ["what?"], tokens), CUTS)
    else:
        generation, logits = run(family, tokens, ["what?"], [fastv(*cut) for cut in CUTS], loop=loop)
        ids = [list(answer) for answer in generation.token_ids]
    expected, wanted, _ = by_masking(window)
    assert ids == [expected]
    assert (logits[0] - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("loop", ["thin", "segments"])
@pytest.mark.parametrize(("window", "cuts"), [(53, CUTS), (10, [])])
def test_flash_kernels_are_exact_in_padded_batches_too(monkeypatch, window, cuts, loop):
    """A window that the answer leaves; without a cut also one that the prompt is longer than."""
    flash.install(monkeypatch)
    answers = []
    for attention in ("flash_attention_2", "sdpa"):
        family = tiny.llava("qwen2", sliding_window=window, attention=attention, seed=46)
        tokens = everything(family, 2)
        assert build_prompt(family, PADDED, tokens).lengths == (36, 52)
        answers.append(run(family, tokens, PADDED, [fastv(*cut) for cut in cuts], loop=loop))
    assert answers[0][0].token_ids == answers[1][0].token_ids
    assert (answers[0][1] - answers[1][1]).abs().max() < 1e-4


def test_flash_kernels_are_refused_where_the_prompt_is_longer_than_the_window(monkeypatch):
    flash.install(monkeypatch)
    family = tiny.llava("mistral", sliding_window=LENGTH - 1, attention="flash_attention_2", seed=47)
    tokens = everything(family, 1)
    check_refused(family, build_prompt(family, ["what?"], tokens), "sliding window of 39", "sdpa")
    for loop in ("thin", "segments"):
        with pytest.raises(UserError, match="sliding window of 39"):
            run(family, tokens, ["what?"], [fastv(2, 0.5)], loop=loop)
    # Without a cut the kernel's own window is right.
    thin, segments = (run(family, everything(family, 1), ["what?"], loop=loop)[1] for loop in ("thin", "segments"))
    assert torch.equal(thin, segments)
    kinds = ["full_attention"] * len(family.layers)
    kinds[1] = "sliding_attention"  # it ranks for the cut after it
    family.language_model.config.layer_types = kinds
    check_refused(family, build_prompt(family, ["what?"], tokens), "sliding window of 39", "sdpa", cuts=[(2, 0.5)])
