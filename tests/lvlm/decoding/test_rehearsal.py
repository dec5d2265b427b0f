"""What a step does is what its CUDA graph would replay, for every prompt of its shape, in every family."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.decoding.captured import CapturedStep
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from tests import tiny
from tests.lvlm.decoding.rehearsal import Rehearsal
from tests.lvlm.decoding.test_runners import CUTS, DECODERS
from tests.lvlm.test_invariants import BATCHES, fastv, some
from tests.lvlm.test_matrix import pictures, tokens_of
from tests.lvlm.zoo import ZOO

STEPS = 3
RAGGED = "padded batch, unequal images"
CASES = [
    ("llama, GQA", "one", "none"),
    ("llama, GQA", RAGGED, "none"),
    ("llama, eager", RAGGED, "two"),
    ("mistral, sliding window", "one", "two"),
    ("bfloat16", RAGGED, "two"),
    ("qwen3", "one", "two"),
    ("qwen2, some layers with a window", RAGGED, "two"),
]


@pytest.fixture(autouse=True)
def rehearsed(monkeypatch):
    monkeypatch.setattr(captured, "WORTH", 1)
    monkeypatch.setattr(captured, "Recorder", Rehearsal)
    monkeypatch.setattr(captured, "capture_device", lambda family: None if family.uncapturable else family.device)
    monkeypatch.setattr(Rehearsal, "recorded", 0)
    monkeypatch.setattr(Rehearsal, "replayed", 0)


def answer(family, tokens, prompts, pruners, loop="static"):
    family.model.generation_config.eos_token_id = None
    return generate(family, tokens, prompts, pruners, STEPS, loop=loop).token_ids


def check(family, tokens, prompts, pruners):
    """Two answers share one recording; the second's prompts are others of the same shape."""
    for texts in (prompts, [text.replace("w", "v") for text in prompts]):
        expected = answer(family, tokens, texts, pruners, "segments")
        family.last_prompt = None
        assert answer(family, tokens, texts, pruners) == expected or family.dtype != torch.float32
    assert len(family.steps) == Rehearsal.recorded == 1
    assert Rehearsal.replayed == 2 * (STEPS - 1)  # the first step of all is done twice, the second time as a replay
    assert all(step.captured is not None for step in family.steps.values())


@pytest.mark.parametrize(("name", "batch", "cuts"), CASES)
def test_every_step_is_the_recorded_one(name, batch, cuts):
    family = tiny.llava(**DECODERS[name])
    prompts, images = BATCHES[batch]
    check(family, some(family, sum(images), 0.75), prompts, [fastv(*cut) for cut in CUTS[cuts]])


@pytest.mark.parametrize("name", ZOO)
def test_in_every_family_that_has_such_steps(name):
    row = ZOO[name]
    family = row.build("sdpa")
    if fits_segments(family):
        tokens = tokens_of(family, pictures(row, 2), None, 1.0)
        check(family, tokens, ["what?", "a longer question, which?"], [fastv(row.first, 0.5)])


def test_a_prefix_that_lies_in_the_buffers_changes_nothing():
    family = tiny.llava(seed=64)
    tokens = some(family, 1, 0.75)
    answer(family, tokens, ["what is it?"], [])
    answer(family, tokens, ["what is at?"], [])
    assert Rehearsal.recorded == 1 and Rehearsal.replayed == 2 * (STEPS - 1)


OUTSIDE = torch.ones(1)
WRONG = {
    "needs a value on the host": lambda step: step.position + step.position.max().item(),
    "from outside of the recording": lambda step: step.position * OUTSIDE,
    "from outside": lambda step: step._logits + 1,
    "was .* and is": lambda step: step.position + step.prompts,
    "mask": lambda step: step.position[step.position > 0],
}


@pytest.mark.parametrize("what", WRONG)
def test_a_step_that_no_graph_could_replay_is_noticed(what, monkeypatch):
    run = CapturedStep._run

    def wrong(step, family):
        if step.__dict__.get("_logits") is not None:  # not in the first run, which is not recorded
            WRONG[what](step)
        run(step, family)

    monkeypatch.setattr(CapturedStep, "_run", wrong)
    family = tiny.llava(seed=65)
    tokens = some(family, 1, 0.75)
    with pytest.raises(AssertionError, match="value on the host" if what == "mask" else what):
        [answer(family, tokens, [question], []) for question in ("what?", "that?")]
