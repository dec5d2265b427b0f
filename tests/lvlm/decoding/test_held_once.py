"""Keys and values are held once: by the step that decodes, not beside it by the prefill and the prefix."""

from __future__ import annotations

import gc

import pytest
import torch

from fopru_graph.lvlm.decoding import captured, segments
from fopru_graph.lvlm.decoding.generate import generate
from tests import tiny
from tests.lvlm.test_invariants import everything, fastv, run

HEAD_SIZE = 8  # of tiny.llava


@pytest.fixture(autouse=True)
def _exact_room(monkeypatch):
    """Buffers have room for the answer and no more, so that what is held can be told from what is reported."""
    monkeypatch.setattr(captured, "BUCKET", 1)
    monkeypatch.setattr(captured, "bucket", lambda tokens: tokens)
    monkeypatch.setattr(segments, "BLOCK", 512)


def caches_alive(heads, least):
    """Bytes of all storages of keys and values: (B, heads, T ≥ least, HEAD_SIZE)."""
    found = {}
    tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.dim() == 4]
    for tensor in tensors:
        if tensor.shape[1::2] == (heads, HEAD_SIZE) and tensor.shape[2] >= least:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(found.values())


def held(family, tokens, question, pruners=(), loop="static"):
    """Bytes of keys and values that are alive while the last token is told, and those that the report has."""
    heads, new = family.model.config.text_config.num_key_value_heads, 6
    alive, told = [], []
    family.model.generation_config.eos_token_id = None

    def look(ids, _logits):
        told.append(ids)
        if len(told) == new:
            alive.append(caches_alive(heads, 10))

    report = generate(family, tokens, [question], pruners, max_new_tokens=new, on_step=look, loop=loop)
    return alive[0], report.kv_bytes


@pytest.mark.parametrize("loop", ["segments", "static"])
@pytest.mark.parametrize("pruners", [[], [fastv(2, 0.5)]], ids=["plain", "cut"])
def test_what_is_held_while_decoding_is_what_is_reported(loop, pruners):
    family = tiny.llava(seed=50)
    tokens = everything(family, 1)
    gc.collect()
    alive, reported = held(family, tokens, "what is it?", pruners, loop)
    assert alive == reported
    family.forget()
    gc.collect()
    assert caches_alive(family.model.config.text_config.num_key_value_heads, 10) == 0


@pytest.mark.parametrize("loop", ["segments", "static"])
def test_a_second_question_holds_nothing_of_the_first_beside_its_own(loop):
    family = tiny.llava(seed=51)
    tokens = everything(family, 1)
    gc.collect()
    held(family, tokens, "what is it?", loop=loop)
    alive, reported = held(family, tokens, "what is at?", loop=loop)
    assert alive == reported
    alive, reported = held(family, everything(family, 1), "what is it?", loop=loop)  # another picture
    assert alive == reported


def test_the_prefix_lies_in_the_step_and_the_next_prompt_is_computed_there():
    family = tiny.llava(seed=52)
    tokens = everything(family, 1)
    run(family, tokens, ["what is it?"], loop="static")
    (step,) = family.steps.values()
    place = [keys.data_ptr() for keys, _ in step.caches]
    second, _ = run(family, tokens, ["what is at?"], loop="static")
    assert second.reused
    ((_, _, layers),) = family.last_prompt.values()
    assert [keys.data_ptr() for keys, _ in layers] == place and list(family.steps.values()) == [step]


def test_what_another_picture_overwrites_is_not_taken_for_a_prefix():
    family = tiny.llava(seed=53)
    first, other = everything(family, 1), family.project(family.encode([tiny.image(5)]), None)
    alone, _ = run(family, first, ["what is it?"], loop="static")
    run(family, other, ["what is it?"], loop="static")  # into the same buffers
    for loop in ("static", "segments", "thin"):
        again, _ = run(family, first, ["what is it?"], loop=loop)
        assert again.token_ids == alone.token_ids
    assert len(family.steps) == 1


def test_a_run_that_ends_in_an_error_leaves_no_prefix_that_it_may_have_overwritten():
    family = tiny.llava(seed=54)
    first, other = everything(family, 1), family.project(family.encode([tiny.image(5)]), None)
    alone, _ = run(family, first, ["what is it?"], loop="static")

    def stop(_ids, _logits):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(family, other, ["what is it?"], on_step=stop, loop="static")
    again, _ = run(family, first, ["what is it?"], loop="static")
    assert (again.token_ids, again.reused) == (alone.token_ids, 0)
