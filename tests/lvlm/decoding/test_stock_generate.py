"""The stock row of a bench is transformers' own generate, with times and counts read off it."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from tests import tiny
from tests.lvlm.zoo import ZOO


@pytest.mark.parametrize("images", [1, 2])
def test_it_says_what_an_unpruned_pipeline_says(images):
    family = tiny.llava(seed=40)
    pictures = [tiny.image(i) for i in range(images)]
    ours = generate(family, family.project(family.encode(pictures), None), ["what?"], max_new_tokens=6)
    theirs = stock_generate(family, pictures, "what?", max_new_tokens=6, min_new_tokens=6)
    assert theirs.token_ids == ours.token_ids and theirs.texts == ours.texts
    assert (theirs.kv_lengths, theirs.kv_bytes) == (ours.kv_lengths, ours.kv_bytes)
    assert theirs.visual_per_layer == ours.visual_per_layer
    assert len(theirs.step_ms) == 5 and theirs.prefill_ms > 0 and theirs.preprocess_ms > 0
    assert theirs.report()["preprocess_ms"] == theirs.preprocess_ms


def test_the_length_of_its_answer_can_be_forced():
    family = tiny.llava(seed=41)
    free = stock_generate(family, [tiny.image()], "what?", max_new_tokens=4)
    family.model.generation_config.eos_token_id = free.token_ids[0][0]
    assert len(stock_generate(family, [tiny.image()], "what?", max_new_tokens=4).token_ids[0]) == 1
    assert len(stock_generate(family, [tiny.image()], "what?", 4, min_new_tokens=4).token_ids[0]) == 4


class Stop(Exception):
    pass


def test_it_can_be_stopped_and_leaves_nothing_behind():
    family = tiny.llava(seed=42)
    first = stock_generate(family, [tiny.image()], "what?", max_new_tokens=4)

    def stop():
        raise Stop

    with pytest.raises(Stop):
        stock_generate(family, [tiny.image()], "what?", max_new_tokens=4, on_token=stop)
    assert not torch.is_inference_mode_enabled()
    assert stock_generate(family, [tiny.image()], "what?", max_new_tokens=4).token_ids == first.token_ids
    with pytest.raises(UserError, match="do not fit"):
        stock_generate(family, [tiny.image()], "<image> or <image>?")


def test_without_the_stock_processor_there_is_no_stock_row():
    family = ZOO["internvl"].build("sdpa")
    with pytest.raises(UserError, match="internvl does not load here: it was made of parts") as caught:
        stock_generate(family, [tiny.image()], "what?")
    assert "torchvision" in caught.value.hint
