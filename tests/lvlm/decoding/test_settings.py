"""The checkpoint's generation_config: what stock applies to logits is applied here, what is not served is refused."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GenerationConfig

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.lvlm.loading.load import load_model
from tests import tiny
from tests.lvlm.test_invariants import BATCHES, STEPS, everything, fastv, run, some, stock

LOOPS = ["thin", "segments", "static"]
PAD = {"pad_token_id": 0}
FAVOUR = {"sequence_bias": [[[id], 30.0] for id in range(90, 120)]}  # what the prompt is written in
SETTINGS = {
    "repetition": {"repetition_penalty": 0.2},
    "repetition of the prompt": {"encoder_repetition_penalty": 1.5},
    "n-grams": {"no_repeat_ngram_size": 1, **FAVOUR},
    "n-grams of the prompt": {"encoder_no_repeat_ngram_size": 1, **FAVOUR},
    "bias": {"sequence_bias": [[[50], 30.0], [[50, 60], 40.0]]},
    "begin": {"begin_suppress_tokens": list(range(100, 300))},
    "least length": {"min_new_tokens": 4, "eos_token_id": list(range(200))},
    "forced end": {"forced_eos_token_id": 7},
    "decay": {"exponential_decay_length_penalty": (1, 3.0), "eos_token_id": list(range(3, 90))},
    "watermark": {"watermarking_config": {"bias": 20.0}},
    "many": {"suppress_tokens": [7, 9], "bad_words_ids": [[11], [50, 60]], "renormalize_logits": True},
}


@pytest.mark.parametrize("batch", ["one", "padded batch, unequal images"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_does_what_it_does_in_stock(setting, batch):
    family = tiny.llava(seed=50)
    prompts, images = BATCHES[batch]
    tokens = everything(family, sum(images))
    free = run(family, tokens, prompts)[0].token_ids
    family.model.generation_config = GenerationConfig(**PAD, **SETTINGS[setting])
    expected, _ = stock(family, prompts, images)
    stop = family.stop_ids
    cut = [[id for i, id in enumerate(ids) if not stop & set(ids[:i])] for ids in expected.tolist()]
    assert setting == "many" or tuple(map(tuple, cut)) != free  # it bites
    for loop in LOOPS:
        family.forget()
        assert [*map(list, run(family, tokens, prompts, loop=loop)[0].token_ids)] == cut, loop


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"top_p": 0.5, "top_k": 0}, {"min_p": 0.3}], ids=str)
def test_above_temperature_0_tokens_are_drawn_as_stock_draws_them(settings):
    family = tiny.llava(seed=51)
    family.model.generation_config = GenerationConfig(**PAD, **settings, repetition_penalty=1.2)
    tokens = everything(family, 1)
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected, _ = stock(family, ["x"], [1], do_sample=True, temperature=2.0)
        for loop in LOOPS:
            answer, _ = run(family, tokens, ["x"], temperature=2, seed=seed, loop=loop)
            assert list(answer.token_ids[0]) == expected[0].tolist()


def test_greedy_is_the_default_in_both_arms_whatever_the_checkpoint_samples():
    family = tiny.llava(seed=52)
    expected = run(family, everything(family, 1), ["x"])[0].token_ids
    family.model.generation_config = GenerationConfig(**PAD, do_sample=True, temperature=0.01, top_p=0.001, top_k=1)
    assert run(family, everything(family, 1), ["x"])[0].token_ids == expected
    assert stock_generate(family, [tiny.image(0)], "x", STEPS).token_ids == expected


@pytest.mark.parametrize("loop", LOOPS)
def test_penalties_see_the_whole_prompt_where_its_prefix_is_known(loop):
    family = tiny.llava(seed=53)
    family.model.generation_config = GenerationConfig(**PAD, repetition_penalty=1.4, no_repeat_ngram_size=1)
    tokens = everything(family, 1)
    fresh, _ = run(family, everything(family, 1), ["what is left of it?"], loop=loop)
    run(family, tokens, ["what is it?"], loop=loop)
    again, _ = run(family, tokens, ["what is left of it?"], loop=loop)
    assert again.reused > 0 and again.token_ids == fresh.token_ids


@pytest.mark.parametrize("batch", ["one", "padded batch, unequal images"])
def test_lengths_are_those_of_the_unpruned_prompt(batch):
    """``min_length`` counts the prompt: dropping visual tokens must not make an answer longer."""
    family = tiny.llava(seed=54)
    prompts, images = BATCHES[batch]
    whole = stock(family, prompts, images)[0]
    asked = max(run(family, everything(family, sum(images)), prompts)[0].kv_lengths) - (STEPS - 1)
    assert whole.shape[1] == STEPS
    family.model.generation_config = GenerationConfig(**PAD, eos_token_id=list(range(320)), min_length=asked + 2)
    family.model.generation_config.eos_token_id.remove(100)  # else nothing could be said before
    for pruners in ([], [fastv(2, 0.5)]):
        answer, _ = run(family, some(family, sum(images), 0.5), prompts, pruners)
        assert {len(ids) for ids in answer.token_ids} == {3}


def test_both_arms_follow_the_checkpoint_and_the_node_wins_over_it():
    family = tiny.llava(seed=55)
    picture, tokens = tiny.image(0), everything(family, 1)
    first = run(family, tokens, ["x"])[0].token_ids[0][0]
    family.model.generation_config = GenerationConfig(
        **PAD, eos_token_id=first, min_new_tokens=2, repetition_penalty=1.3, use_cache=False,
        return_dict_in_generate=True, output_scores=True, cache_implementation="static", max_length=3,
    )  # fmt: skip
    for least in (0, 4):
        theirs = stock_generate(family, [picture], "x", 8, least)
        ours = generate(family, tokens, ["x"], max_new_tokens=8, min_new_tokens=least)
        assert ours.token_ids == theirs.token_ids and len(ours.token_ids[0]) > max(2, least)
        assert first not in ours.token_ids[0][: max(2, least)]


UNSERVED = {
    "num_beams": 4,
    "penalty_alpha": 0.6,
    "guidance_scale": 1.5,
    "stop_strings": ["###"],
    "max_time": 2.0,
    "prompt_lookup_num_tokens": 3,
    "num_return_sequences": 2,
}


@pytest.mark.parametrize("name", UNSERVED)
def test_what_is_not_served_is_refused_by_name_in_both_arms(name):
    family = tiny.llava(seed=56)
    family.model.generation_config = GenerationConfig(**PAD)
    setattr(family.model.generation_config, name, UNSERVED[name])
    for answer in (
        lambda: generate(family, everything(family, 1), ["x"]),
        lambda: stock_generate(family, [tiny.image(0)], "x"),
    ):
        with pytest.raises(UserError, match=f"sets {name} to") as refused:
            answer()
        assert "generation_config.json" in refused.value.hint


@pytest.mark.parametrize("settings", [{"bad_words_ids": [[9999]]}, {"repetition_penalty": -2.0}], ids=str)
def test_a_wrong_value_is_one_sentence_in_both_arms(settings):
    family = tiny.llava(seed=57)
    family.model.generation_config = GenerationConfig(**PAD)
    for name, value in settings.items():
        setattr(family.model.generation_config, name, value)
    for answer in (
        lambda: generate(family, everything(family, 1), ["x"]),
        lambda: stock_generate(family, [tiny.image(0)], "x"),
    ):
        with pytest.raises(UserError, match="generation_config cannot be used|generate refuses") as refused:
            answer()
        assert "generation_config.json" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"num_beams": 3}', "sets num_beams to 3"),
        ("{ repetition", "cannot be used"),
        ("[1, 2]", "cannot be used"),
        ('{"eos_token_id": 2, "max_new_tokens": -1}', "cannot be used"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_before_weights_load(tmp_path, text, message, monkeypatch):
    """Transformers passes over a damaged file, and the answer then never ends."""
    family = tiny.llava(seed=58)
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(text)
    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", None)
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_settings_of_a_folder_hold(tmp_path, where):
    """Old checkpoints have them in config.json, where transformers still looks if there is no file for them."""
    family = tiny.llava(seed=59)
    free = run(family, everything(family, 1), ["x"])[0].token_ids
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    if where == "config.json":
        (tmp_path / "generation_config.json").unlink()
    path = tmp_path / where
    path.write_text(json.dumps(json.loads(path.read_text()) | {"no_repeat_ngram_size": 1}))
    opened = load_model(str(tmp_path), device="cpu").family
    opened.model.generation_config.eos_token_id = None
    answer = run(opened, everything(opened, 1), ["x"])[0].token_ids
    assert answer == (tuple(stock(opened, ["x"], [1])[0][0].tolist()),) != free
