"""The invariants of trust: identity with stock, dropping equals masking, composition, hygiene, one truth."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.hooks import pruned
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.pruning.select import rank_select, reorder
from fopru_graph.values import InLLMPruner, Selection
from tests import tiny
from tests.lvlm.reference import answer_by_masking

STEPS = 5
CONFIGS = {
    "llama, GQA": {},
    "llama, deep, no GQA": {"layers": 7, "kv_heads": 4, "grid": (3, 3), "seed": 1},
    "llama, wide, MQA": {"layers": 3, "heads": 8, "kv_heads": 1, "grid": (6, 6), "vision_layers": 3, "seed": 2},
    "llama, eager": {"attention": "eager", "seed": 3},
    "qwen2": {"text": "qwen2", "layers": 4, "grid": (5, 5), "seed": 4},
    "mistral, sliding window": {"text": "mistral", "sliding_window": 12, "seed": 5},
    "vision layer 2": {"vision_feature_layer": 2, "seed": 6},
    "bfloat16": {"dtype": torch.bfloat16, "seed": 7},
    "bfloat16, eager, deep": {"dtype": torch.bfloat16, "attention": "eager", "layers": 6, "seed": 8},
}


def random_config(seed: int) -> dict:
    """A small LLaVA that nobody chose."""
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([2, 4, 6, 8]))
    side = int(rng.integers(2, 8))
    return {
        "text": str(rng.choice(["llama", "mistral", "qwen2"])),
        "layers": int(rng.integers(3, 9)),
        "heads": heads,
        "kv_heads": int(rng.choice([n for n in (1, 2, 4) if heads % n == 0])),
        "grid": (side, side),
        "vision_layers": int(rng.integers(2, 6)),
        "attention": str(rng.choice(["sdpa", "eager"])),
        "seed": seed,
    }


CONFIGS |= {f"random {seed}": random_config(seed) for seed in range(100, 106)}
BATCHES = {
    "one": (["what is it?"], [1]),
    "two images in one prompt": (["<image> or <image>, which?"], [2]),
    "padded batch": (["what?", "a longer question about this one"], [1, 1]),
    "padded batch, unequal images": (["<image>why?", "first <image> then <image> now"], [1, 2]),
}


def fastv(layer: int, ratio: float) -> InLLMPruner:
    return InLLMPruner(last_token_attention, layer, ratio)


def everything(family, images: int):
    return family.project(family.encode([tiny.image(i) for i in range(images)]), None)


def some(family, images: int, ratio: float):
    """A selection that differs from image to image."""
    features = family.encode([tiny.image(i) for i in range(images)])
    chosen = []
    for i, count in enumerate(features.counts):
        scores = torch.rand(count, generator=torch.Generator().manual_seed(i))
        chosen.append(reorder(rank_select(scores, ratio if i == 0 else ratio / 2)))
    return family.project(features, Selection(tuple(chosen), features.counts))


def run(family, tokens, prompts, pruners=(), **options):
    logits = []
    generation = generate(
        family,
        tokens,
        prompts,
        pruners,
        max_new_tokens=STEPS,
        on_step=lambda _ids, row: logits.append(row.clone()),
        **options,
    )
    return generation, torch.stack(logits, 1)  # (B, steps, V)


def stock(family, prompts, images: list[int], **options):
    """The stock processor and the stock generate, nothing of ours."""
    texts = []
    for prompt, count in zip(prompts, images, strict=True):
        marked = prompt if "<image>" in prompt else "<image>\n" * count + prompt
        texts.append(f"USER: {marked} ASSISTANT:")
    pictures = [tiny.image(i).picture for i in range(sum(images))]
    inputs = family.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(family.dtype)
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True} | options
    output = family.model.generate(**inputs, max_new_tokens=STEPS, **options)
    return output.sequences[:, inputs.input_ids.shape[1] :], torch.stack(output.logits, 1)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("batch", BATCHES)
def test_without_pruning_it_is_the_stock_model(config, batch):
    family = tiny.llava(**CONFIGS[config])
    prompts, images = BATCHES[batch]
    ids, logits = stock(family, prompts, images)
    loop = "auto" if family.dtype == torch.float32 else "thin"  # in half precision others round in their own way
    for pruners in ([], [fastv(1, 1.0)], [fastv(1, 1.0), fastv(2, 1.0)]):
        generation, ours = run(family, everything(family, sum(images)), prompts, pruners, loop=loop)
        assert [list(one) for one in generation.token_ids] == ids.tolist()
        assert (ours - logits).abs().max() <= (1e-4 if family.dtype == torch.float32 else 1e-2)


@cache
def built(config):
    """The model, and the same with slow attention."""
    return tuple(tiny.llava(**CONFIGS[config] | more) for more in ({}, {"attention": "eager"}))


@pytest.mark.parametrize("config", [name for name in CONFIGS if not name.startswith("bfloat16")])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cuts", [[(1, 0.25)], [(1, 0.5), (2, 0.5)]], ids=str)
def test_dropping_equals_masking(config, batch, cuts):
    settings, (family, eager) = CONFIGS[config], built(config)
    prompts, images = BATCHES[batch]
    tokens = some(family, sum(images), 0.75)
    generation, ours = run(family, tokens, prompts, [fastv(*cut) for cut in cuts])
    prompt = build_prompt(family, prompts, tokens)
    for i, real in enumerate(prompt.attention_mask.bool()):
        ids, logits, hidden = answer_by_masking(
            eager, prompt.embeds[i, real], prompt.visual[i, real], cuts, STEPS, settings.get("sliding_window")
        )
        assert list(generation.token_ids[i]) == ids
        assert (ours[i] - logits).abs().max() < 1e-4
        if len(prompts) == 1:
            length = int(real.sum()) + STEPS - 1
            assert list(generation.kv_lengths) == [length - len(dropped) for dropped in hidden]
            assert generation.kv_lengths[0] > generation.kv_lengths[-1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("loop", ["thin", "segments"])
def test_equally_long_prompts_that_keep_different_numbers(attention, loop):
    """Nothing is padded before the cut, yet fillers are needed after it."""
    family, eager = (tiny.llava(seed=18, attention=kind) for kind in (attention, "eager"))
    features = family.encode([tiny.image(0), tiny.image(1)])
    tokens = family.project(features, Selection((torch.arange(8), torch.arange(4, 8)), features.counts))
    prompts = ["<image>short", "<image>shortlong"]
    prompt = build_prompt(family, prompts, tokens)
    assert not prompt.padded
    cuts = [(1, 0.5), (3, 0.5)]
    generation, ours = run(family, tokens, prompts, [fastv(*cut) for cut in cuts], loop=loop)
    assert generation.visual_per_layer == (12, 6, 6, 3, 3)
    for i in range(2):
        ids, logits, _ = answer_by_masking(eager, prompt.embeds[i], prompt.visual[i], cuts, STEPS)
        assert list(generation.token_ids[i]) == ids
        assert (ours[i] - logits).abs().max() < 1e-4


@cache
def six_layers(attention):
    return tiny.llava(layers=6, seed=20, attention=attention)


CHAINS = st.lists(st.tuples(st.integers(1, 5), st.floats(0.05, 1.0)), max_size=3, unique_by=lambda cut: cut[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.permutations(range(16)), min_size=1, max_size=2), st.integers(1, 16), CHAINS)
def test_any_selection_works_with_any_chain(orders, kept, chain):
    """Any subset of the tokens in any order, then cuts at any layers, each with any ratio."""
    family, eager = six_layers("sdpa"), six_layers("eager")
    features = family.encode([tiny.image(i) for i in range(len(orders))])
    chosen = tuple(torch.tensor(order[: max(1, kept - i)]) for i, order in enumerate(orders))
    tokens = family.project(features, Selection(chosen, features.counts))
    cuts = sorted(chain)
    generation, ours = run(family, tokens, ["<image>" * len(orders) + "x"], [fastv(*cut) for cut in chain])
    prompt = build_prompt(family, ["<image>" * len(orders) + "x"], tokens)
    ids, logits, hidden = answer_by_masking(eager, prompt.embeds[0], prompt.visual[0], cuts, STEPS)
    assert list(generation.token_ids[0]) == ids
    assert (ours[0] - logits).abs().max() < 1e-4
    assert [len(dropped) for dropped in hidden] == [generation.kv_lengths[0] - n for n in generation.kv_lengths]


def test_dropping_equals_masking_in_bfloat16_given_the_same_choice():
    settings = CONFIGS["bfloat16"]
    family, eager = tiny.llava(**settings), tiny.llava(**settings | {"attention": "eager", "dtype": torch.float32})
    eager.model.load_state_dict({k: v.float() for k, v in family.model.state_dict().items()})
    tokens = everything(family, 1)
    generation, ours = run(family, tokens, ["what?"], [fastv(2, 0.5)])
    prompt = build_prompt(family, ["what?"], tokens)
    ids, logits, hidden = answer_by_masking(eager, prompt.embeds[0].float(), prompt.visual[0], [(2, 0.5)], 1)
    kept = {int(row[1]) for row in generation.kept[0]}
    positions = prompt.visual[0].nonzero()[:, 0].tolist()
    assert kept == {i for i, position in enumerate(positions) if position not in hidden[-1]}
    assert (ours[0, 0] - logits[0]).abs().max() < 0.1 * logits.abs().max()


@pytest.mark.parametrize("batch", BATCHES)
def test_hooks_work_under_stock_generate(batch):
    family = tiny.llava(seed=9)
    prompts, images = BATCHES[batch]
    tokens = some(family, sum(images), 0.75)
    pruners = [fastv(1, 0.5), fastv(3, 0.5)]
    generation, _ = run(family, tokens, prompts, pruners)
    prompt = build_prompt(family, prompts, tokens)
    with pruned(family, Cuts(family, pruners, prompt)):
        output = family.model.generate(
            inputs_embeds=prompt.embeds,
            attention_mask=prompt.attention_mask,
            **{cache_argument(): DynamicCache()},
            max_new_tokens=STEPS,
            do_sample=False,
        )
    assert output.tolist() == [list(ids) for ids in generation.token_ids]


@pytest.mark.parametrize(("images", "prompts"), [(1, ["a?"]), (3, ["<image>x", "<image>longer <image>y"])])
def test_counts_are_read_from_tensors(images, prompts):
    family = tiny.llava(seed=10)
    tokens = some(family, images, 0.5)
    generation, _ = run(family, tokens, prompts, [fastv(2, 0.5), fastv(4, 0.5)])
    assert generation.encoded == 16 * images
    assert generation.projected == sum(len(rows) for rows in tokens.embeddings)
    assert generation.visual_per_layer[0] == generation.visual_per_layer[1] == generation.projected
    assert generation.visual_per_layer[4] == sum(len(kept) for kept in generation.kept)
    for kept, origin in zip(generation.kept, tokens.origin, strict=True):
        assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in origin.tolist()}
    prompt = build_prompt(family, prompts, tokens)
    cache = DynamicCache()
    with pruned(family, Cuts(family, [fastv(2, 0.5), fastv(4, 0.5)], prompt)):
        family.language_model(
            inputs_embeds=prompt.embeds,
            attention_mask=prompt.attention_mask,
            use_cache=True,
            **{cache_argument(): cache},
        )
    assert [n - (STEPS - 1) for n in generation.kv_lengths] == [layer.keys.shape[-2] for layer in cache.layers]
    heads = family.model.config.text_config.num_key_value_heads
    size = 2 * heads * 8 * 4 * len(prompts)
    assert generation.kv_bytes == sum(n * size for n in generation.kv_lengths)


def fingerprint(family) -> dict:
    """All that a run could leave behind: hooks, configs, weights."""
    modules = dict(family.model.named_modules())
    return {
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in modules.items()},
        "configs": {
            n: (id(m.config), m.config._attn_implementation) for n, m in modules.items() if hasattr(m, "config")
        },
        "weights": {n: (p.data_ptr(), p.double().sum().item()) for n, p in family.model.named_parameters()},
    }


class Stop(Exception):
    pass


def test_nothing_is_left_behind_whatever_happens():
    family = tiny.llava(seed=11)
    before = fingerprint(family)
    tokens = some(family, 1, 0.5)
    clean, _ = run(family, tokens, ["x"])
    rows = [one.clone() for one in tokens.embeddings]

    def stop(_ids, _logits):
        raise Stop

    with pytest.raises(Stop):
        generate(family, tokens, ["x"], [fastv(2, 0.5)], on_step=stop)
    with pytest.raises(UserError, match="layer 9"):
        generate(family, tokens, ["x"], [fastv(9, 0.5)])
    with pytest.raises(UserError, match="image"):
        generate(family, tokens, ["<image><image>"], [fastv(2, 0.5)])
    broken = InLLMPruner(lambda *_: 1 / 0, 2, 0.5)
    with pytest.raises(ZeroDivisionError):
        generate(family, tokens, ["x"], [broken])
    assert fingerprint(family) == before
    assert all(torch.equal(a, b) for a, b in zip(rows, tokens.embeddings, strict=True))
    again, _ = run(family, tokens, ["x"])
    assert again.token_ids == clean.token_ids and again.kv_lengths == clean.kv_lengths


def test_a_second_prompt_inside_one_pruned_block_is_refused():
    family = tiny.llava(seed=12)
    prompt = build_prompt(family, ["x"], everything(family, 1))
    with pruned(family, Cuts(family, [fastv(2, 0.5)], prompt)):
        family.language_model(inputs_embeds=prompt.embeds)
        with pytest.raises(UserError, match="second prompt"):
            family.language_model(inputs_embeds=prompt.embeds)


def test_two_pruners_at_one_layer_are_applied_one_after_the_other():
    family = tiny.llava(seed=13)
    tokens = everything(family, 1)
    twice, a = run(family, tokens, ["x"], [fastv(2, 0.5), fastv(2, 0.5)])
    once, b = run(family, tokens, ["x"], [fastv(2, 0.25)])
    assert twice.kv_lengths == once.kv_lengths
    assert torch.equal(a, b)


def test_a_count_bounds_every_sample():
    family = tiny.llava(seed=14)
    pruner = InLLMPruner(last_token_attention, 2, tokens=3)
    generation, _ = run(family, some(family, 2, 0.5), ["<image>a", "<image>a longer one"], [pruner])
    assert generation.visual_per_layer[-1] == 6


def test_an_answer_ends_at_the_stop_token_and_finished_samples_wait():
    family = tiny.llava(seed=15)
    tokens = everything(family, 2)
    free, _ = run(family, tokens, ["a", "bb"])
    stop = free.token_ids[0][1]
    family.model.generation_config.eos_token_id = [stop]
    stopped, _ = run(family, tokens, ["a", "bb"])
    assert stopped.token_ids[0] == free.token_ids[0][: free.token_ids[0].index(stop) + 1]
    expected = free.token_ids[1]
    end = expected.index(stop) + 1 if stop in expected else len(expected)
    assert stopped.token_ids[1] == expected[:end]


def test_nothing_to_see_or_to_say_is_refused():
    family = tiny.llava(seed=17)
    with pytest.raises(UserError, match="no image"):
        family.encode([])
    with pytest.raises(UserError, match="max_new_tokens"):
        generate(family, everything(family, 1), ["x"], max_new_tokens=0)


def test_sampling_repeats_with_its_seed():
    family = tiny.llava(seed=16)
    tokens = everything(family, 1)
    runs = [run(family, tokens, ["x"], temperature=1.5, seed=seed)[0].token_ids for seed in (1, 1, 2, 3, 4)]
    assert runs[0] == runs[1]
    assert len(set(runs[1:])) > 1
