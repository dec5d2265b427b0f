"""The context limit, and buffers that grow with the answer instead of being reserved for the longest one."""

from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import BatchFeature, LlamaConfig

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding import captured, segments
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.limit import position_limit
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.test_invariants import BATCHES, everything, fastv, some
from tests.lvlm.zoo import ZOO
from tests.lvlm.zoo import everything as all_tokens

LOOPS = ["thin", "segments", "static"]


def limited(limit: int, **options):
    family = tiny.llava(**options)
    family.language_model.config.max_position_embeddings = limit
    return family


def test_a_prompt_beyond_the_models_positions_is_refused_in_both_arms():
    family = limited(40, seed=70)
    for answer in (
        lambda: generate(family, everything(family, 2), ["<image> or <image>?"]),
        lambda: stock_generate(family, [tiny.image(0), tiny.image(1)], "<image> or <image>?"),
    ):
        with pytest.raises(UserError, match=r"prompt of \d\d tokens, with 1 more .* the 40 positions") as refused:
            answer()
        assert "lower ratio" in refused.value.hint and "Downsample" in refused.value.hint
    assert generate(family, some(family, 2, 0.25), ["<image><image>"], max_new_tokens=2).texts  # the hint helps


def test_the_longest_of_a_batch_counts():
    family = limited(60, seed=71)
    tokens = everything(family, 2)
    assert generate(family, tokens, ["a", "b"], max_new_tokens=2).texts
    with pytest.raises(UserError, match="prompt of 69 tokens"):
        generate(family, tokens, ["a", "b" * 34], max_new_tokens=2)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_ends_with_the_positions_and_says_so(loop):
    family = limited(50, seed=72)
    tokens = everything(family, 1)
    with pytest.warns(UserWarning, match="ended after 14 of at most 200000000 tokens.*50 positions"):
        cut = generate(family, tokens, ["x"], max_new_tokens=200_000_000, loop=loop)
    with pytest.warns(UserWarning, match="ended after 14"):
        assert stock_generate(family, [tiny.image(0)], "x", 200_000_000).token_ids == cut.token_ids
    assert cut.kv_lengths[0] + 1 == 50
    family.model.generation_config.eos_token_id = cut.token_ids[0][3]
    family.forget()
    assert len(generate(family, tokens, ["x"], max_new_tokens=1000, loop=loop).token_ids[0]) <= 4  # without a warning


def test_a_least_length_that_has_no_room_is_refused():
    family = limited(50, seed=73)
    with pytest.raises(UserError, match="with 15 more for the answer"):
        generate(family, everything(family, 1), ["x"], max_new_tokens=15, min_new_tokens=15)
    assert generate(family, everything(family, 1), ["x"], max_new_tokens=14, min_new_tokens=14).texts


def test_positions_count_where_a_model_numbers_them_on_several_axes():
    """A picture of h × w tokens takes max(h, w) positions, and dropped tokens leave theirs taken."""
    row = ZOO["qwen2_vl"]
    family = row.build("sdpa")
    config = family.language_model.config
    images = [tiny.image(0, 112, 112)]
    tokens = all_tokens(family, images)
    length = generate(family, tokens, ["x"], max_new_tokens=1).kv_lengths[0]
    config.max_position_embeddings = length - 10
    assert generate(family, tokens, ["x"], max_new_tokens=2).texts
    config.max_position_embeddings = length - 12
    with pytest.raises(UserError, match=f"{length} tokens on {length - 12} positions") as refused:
        generate(family, tokens, ["x"], max_new_tokens=2)
    assert "ratio" not in refused.value.hint and "Downsample" in refused.value.hint


def test_frames_of_a_video_count():
    family = ZOO["internvl"].build("sdpa")
    film = Video(tuple(tiny.image(i, 112, 112).picture for i in range(4)), "film")
    family.language_model.config.max_position_embeddings = 60
    with pytest.raises(UserError, match="positions of the language model"):
        generate(family, all_tokens(family, [film]), ["x"], max_new_tokens=2)


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default"}, 100),
        ({"rope_type": "linear", "factor": 4.0}, 400),
        ({"rope_type": "dynamic", "factor": 2.0}, 200),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}, 400),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 25}, 100),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 10}, 100),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else str(value),
)
def test_rope_scaling_stretches_the_limit(rope, limit):
    config = LlamaConfig(max_position_embeddings=100)
    config.rope_parameters = rope
    assert position_limit(config) == limit


def test_rope_scaling_of_old_configurations_is_read():
    config = LlamaConfig(max_position_embeddings=100, rope_scaling={"type": "linear", "factor": 4.0})
    assert position_limit(config) == 400


def test_every_family_has_a_limit():
    for name, row in ZOO.items():
        assert position_limit(row.build("sdpa").language_model.config) in (2048, 4096), name


class Enough(Exception):
    pass


@pytest.mark.parametrize("loop", LOOPS)
def test_a_huge_answer_reserves_no_huge_buffers(loop):
    """2e8 tokens of keys and values would be a terabyte."""
    family = limited(10**9, seed=74)
    seen = []

    def stop(ids, _logits):
        seen.append(ids)
        if len(seen) == 3:
            raise Enough

    with pytest.raises(Enough):
        generate(family, everything(family, 1), ["x"], max_new_tokens=200_000_000, on_step=stop, loop=loop)
    assert all(step.kv_bytes < 2**21 for step in family.steps.values())


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cuts", [[], [(1, 0.5), (3, 0.5)]], ids=["plain", "two cuts"])
def test_buffers_grow_with_the_answer_and_change_nothing(batch, cuts, monkeypatch):
    family = tiny.llava(seed=75)
    prompts, images = BATCHES[batch]
    tokens = some(family, sum(images), 0.75)
    pruners = [fastv(*cut) for cut in cuts]

    def answer(loop):
        logits = []
        family.forget()
        options = {"max_new_tokens": 30, "on_step": lambda _ids, row: logits.append(row.clone()), "loop": loop}
        return generate(family, tokens, prompts, pruners, **options), torch.stack(logits)

    thin, expected = answer("thin")
    for module in (segments, captured):
        monkeypatch.setattr(module, "BLOCK", 2)
    monkeypatch.setattr(captured, "BUCKET", 4)
    for loop in ("segments", "static"):
        grown, logits = answer(loop)
        assert grown.token_ids == thin.token_ids and (logits - expected).abs().max() < 1e-4
        assert (grown.kv_lengths, grown.kv_bytes) == (thin.kv_lengths, thin.kv_bytes)
        assert grown.loop == loop and not grown.captured
    assert len(family.steps) > 2  # each longer than the one before
    assert len(grown.once) == len(family.steps)  # and no time per output token has the steps that took over


class StockLike:
    """As much of a stock Qwen2-VL processor as `stock_generate` asks for; the real one needs torchvision."""

    def __init__(self, family):
        self.family, parts = family, family.processor
        self.tokenizer, self.image_processor = parts.tokenizer, parts.image_processor
        self.chat_template, self.apply_chat_template = parts.chat_template, parts.apply_chat_template

    def __call__(self, text, images, return_tensors):
        prepared = self.family.prepare(images)
        first, *others = text.split(self.family.placeholder)
        written = [piece for pair in zip(prepared.markup, others, strict=True) for piece in pair]
        ids = torch.tensor([self.family.tokenize("".join([first, *written]))])
        kinds = (ids == self.family.image_token_id).int()
        return BatchFeature({"input_ids": ids, "mm_token_type_ids": kinds, **prepared.inputs})


def test_the_stock_arm_counts_positions_as_ours_does():
    family = ZOO["qwen2_vl"].build("sdpa")
    images = [tiny.image(0, 112, 112), tiny.image(1, 150, 60)]
    tokens = all_tokens(family, images)
    family.processor = StockLike(family)
    ours = generate(family, tokens, ["x"], max_new_tokens=3)
    assert stock_generate(family, images, "x", 3).token_ids == ours.token_ids
    spans = {}
    for limit in range(ours.kv_lengths[0] - 40, ours.kv_lengths[0]):
        family.language_model.config.max_position_embeddings = limit
        for arm, answer in (
            ("ours", lambda: generate(family, tokens, ["x"], max_new_tokens=1)),
            ("stock", lambda: stock_generate(family, images, "x", 1)),
        ):
            with contextlib.suppress(UserError):
                answer()
                spans.setdefault(arm, limit)
    assert spans["ours"] == spans["stock"] < ours.kv_lengths[0] - 2
