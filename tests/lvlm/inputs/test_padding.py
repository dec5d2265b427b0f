"""Padding whose token has no embedding: a pad token was added to a tokenizer as large as the vocabulary."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from tests import tiny
from tests.lvlm.test_invariants import fastv, run
from tests.lvlm.zoo import ZOO, everything

PROMPTS = ["what?", "a longer question about it"]


def pad_outside(family):
    """Fill the vocabulary up, then add a pad token, as was done for Vicuna."""
    tokenizer, rows = family.processor.tokenizer, family.model.get_input_embeddings().num_embeddings
    tokenizer.add_tokens([f"<filler {i}>" for i in range(rows - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    assert tokenizer.pad_token_id == rows
    return family


@pytest.mark.parametrize("name", ZOO)
def test_a_batch_with_padding_is_answered_as_before(name):
    row = ZOO[name]
    family = row.build("sdpa")
    pictures = [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in (0, 1)]
    tokens = everything(family, pictures)
    free, _ = run(family, tokens, PROMPTS, [fastv(row.first, 0.5)])
    # The first answer ends at once, and is filled up while the second goes on.
    family.model.generation_config.eos_token_id = [free.token_ids[0][0]]
    expected, logits = run(family, tokens, PROMPTS, [fastv(row.first, 0.5)])
    assert len(expected.token_ids[0]) == 1
    again, ours = run(pad_outside(family), tokens, PROMPTS, [fastv(row.first, 0.5)])
    assert again.token_ids == expected.token_ids
    assert torch.equal(ours[1], logits[1])  # the row that goes on
    assert (
        int(build_prompt(family, PROMPTS, tokens).input_ids.max()) < family.model.get_input_embeddings().num_embeddings
    )


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_every_loop_fills_ended_answers_up_with_a_token_that_exists(loop):
    family = tiny.llava(seed=3)
    tokens = everything(family, [tiny.image(0), tiny.image(1)])
    free, _ = run(family, tokens, PROMPTS)
    family.model.generation_config.eos_token_id = [free.token_ids[0][0]]
    expected, _ = run(family, tokens, PROMPTS, loop=loop)
    again, _ = run(pad_outside(family), tokens, PROMPTS, loop=loop)
    assert again.token_ids == expected.token_ids


@pytest.mark.parametrize("anyres", [False, True])
def test_the_stock_arm_answers_too(anyres):
    family = tiny.llava(seed=4, anyres=anyres)
    before = stock_generate(family, [tiny.image()], "what?", max_new_tokens=4)
    assert stock_generate(pad_outside(family), [tiny.image()], "what?", max_new_tokens=4).token_ids == before.token_ids


def test_a_question_that_holds_a_token_without_embedding_is_refused():
    family = pad_outside(tiny.llava())
    with pytest.raises(UserError, match="<new pad>.*no embedding"):
        build_prompt(family, ["what is <new pad>?"], everything(family, [tiny.image()]))
    with pytest.raises(UserError, match="<new pad>.*no embedding"):
        stock_generate(family, [tiny.image()], "what is <new pad>?", max_new_tokens=4)
