"""Prefix caching: a second question about the same image reuses keys and values, and only where that is right."""

from __future__ import annotations

import gc

import pytest

from tests import tiny
from tests.lvlm.test_invariants import everything, fastv, run


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_a_second_question_uses_what_both_begin_with_again(loop):
    family = tiny.llava(seed=28)
    tokens = everything(family, 1)
    fresh = run(family, everything(family, 1), ["what is left of it?"], loop=loop)
    run(family, tokens, ["what is it?"], loop=loop)
    second, logits = run(family, tokens, ["what is left of it?"], loop=loop)
    begin = "<s>USER: " + "*" * 16 + "\nwhat is "  # one token a byte, and one a patch
    assert second.reused == len("<s>USER: ") - 2 + len(begin[len("<s>USER: ") :])
    assert second.token_ids == fresh[0].token_ids and second.kv_lengths == fresh[0].kv_lengths
    assert (logits - fresh[1]).abs().max() < 1e-4
    third, _ = run(family, tokens, ["what is left of it?"], loop=loop)
    assert third.reused == second.kv_lengths[0] - (len(second.token_ids[0]) - 1) - 1  # all but the last token
    assert third.token_ids == second.token_ids


def test_nothing_is_used_again_where_it_would_be_wrong():
    family = tiny.llava(seed=29)
    tokens = everything(family, 1)
    run(family, tokens, ["what is it?"])
    assert run(family, tokens, ["what is it?"], [fastv(2, 0.5)])[0].reused == 0  # the choice depends on the question
    assert run(family, everything(family, 1), ["what is it?"])[0].reused == 0  # encoded anew: may be another image
    two = everything(family, 2)
    run(family, two, ["a", "b"])
    assert run(family, two, ["a", "b"])[0].reused == 0


def test_a_prefix_lives_as_long_as_its_visual_tokens():
    family = tiny.llava(seed=30)
    tokens = everything(family, 1)
    run(family, tokens, ["x"])
    assert len(family.last_prompt) == 1
    del tokens
    gc.collect()
    assert len(family.last_prompt) == 0
