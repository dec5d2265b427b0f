"""Keys in float32 for decoding in bfloat16: where they are faster, held once, and no less exact."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fopru_graph.lvlm.decoding import segments, wide_keys
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import SegmentRunner
from fopru_graph.lvlm.inputs.prompt import build_prompt
from tests import tiny
from tests.lvlm.test_invariants import BATCHES, Stop, everything, fastv, fingerprint, run


@pytest.fixture
def faster(monkeypatch):
    """Set whether the probe finds float32 faster; True at first."""
    found = [True]
    monkeypatch.setattr(wide_keys, "float32_is_faster", lambda *_: found[0])
    return found


# When


class Clock:
    """Attention whose cost is told by its type, in place of the time of this machine."""

    def __init__(self, costs):
        self.costs, self.now, self.calls = costs, 0.0, 0

    def attend(self, query, keys, values, enable_gqa):
        assert query.dtype == keys.dtype == values.dtype and enable_gqa == (query.shape[1] != keys.shape[1])
        self.calls += 1
        noise = 3.0 if self.calls == 1 else 1.0  # the first call of all is slow
        self.now += self.costs[query.dtype] * noise


@pytest.mark.parametrize(("half", "faster"), [(623.0, True), (171.0, True), (157.0, False), (71.0, False)])
def test_float32_is_taken_where_it_is_at_least_twice_as_fast(monkeypatch, half, faster):
    clock = Clock({torch.bfloat16: half, torch.float32: 79.0})
    monkeypatch.setattr(wide_keys, "scaled_dot_product_attention", clock.attend)
    monkeypatch.setattr(wide_keys.time, "perf_counter", lambda: clock.now)
    for groups in (12, 2):
        assert wide_keys.float32_is_faster.__wrapped__(12, groups, 64) == faster


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_probe_is_asked_for_the_heads_of_the_model(monkeypatch, kv_heads):
    asked = []
    monkeypatch.setattr(wide_keys, "float32_is_faster", lambda *shape: asked.append(shape))
    assert wide_keys.keys_type(tiny.llava(dtype=torch.bfloat16, kv_heads=kv_heads)) == torch.bfloat16
    assert asked == [(4, kv_heads, 8)]


def test_other_types_other_kernels_and_answers_of_one_token_are_left_as_they_are(faster):
    for options in ({}, {"dtype": torch.float16}, {"dtype": torch.bfloat16, "attention": "eager"}):
        family = tiny.llava(**options)
        assert wide_keys.keys_type(family) == family.dtype
    family = tiny.llava(dtype=torch.bfloat16)
    runner = SegmentRunner(family, build_prompt(family, ["x"], everything(family, 1)), [], 0)
    before = fingerprint(family)
    with torch.inference_mode(), runner.hooks():
        assert fingerprint(family) == before
        runner.prefill()
    assert {part.dtype for pair in runner.filled() for part in pair} == {torch.bfloat16}


# What follows


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cuts", [[], [(2, 0.5)]], ids=str)
def test_keys_take_twice_the_bytes_and_answers_are_nearly_the_same(faster, monkeypatch, batch, cuts):
    monkeypatch.setattr(segments, "BLOCK", 2)  # the buffers grow within the answer
    prompts, images = BATCHES[batch]
    family = tiny.llava(dtype=torch.bfloat16, seed=70)
    told = {}
    for wide in (False, True):
        faster[0] = wide
        tokens = everything(family, sum(images))
        told[wide] = run(family, tokens, prompts, [fastv(*cut) for cut in cuts], loop="segments")
        family.forget()
    (narrow, expected), (wide, logits) = told[False], told[True]
    assert wide.kv_lengths == narrow.kv_lengths and wide.kv_bytes == 2 * narrow.kv_bytes
    assert torch.equal(logits[:, 0], expected[:, 0])  # the prefill is as it was
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_nearer_to_the_exact_one(kv_heads, masked):
    module = tiny.llava(dtype=torch.bfloat16, kv_heads=kv_heads).layers[0].self_attn
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, 1, 8), (2, kv_heads, 300, 8), (2, kv_heads, 300, 8)
    given = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    mask = (torch.arange(300) > 40)[None, None, None].expand(2, 1, 1, -1) if masked else None
    sdpa, ours = (ALL_ATTENTION_FUNCTIONS[name] for name in ("sdpa", wide_keys._NAME))
    exact, _ = sdpa(module, *[part.double() for part in given], mask, scaling=module.scaling)
    before, _ = sdpa(module, *given, mask, scaling=module.scaling)
    query, keys, values = given
    after, _ = ours(module, query, keys.float(), values.float(), mask, scaling=module.scaling)
    assert after.dtype == before.dtype == torch.bfloat16
    assert (after - exact).square().mean() < (before - exact).square().mean()
    assert torch.equal(after, exact.bfloat16())


def test_logits_are_as_near_to_those_of_the_float32_model(faster):
    errors = {False: 0.0, True: 0.0}
    for seed, batch in enumerate(BATCHES, 71):
        half, full = tiny.llava(dtype=torch.bfloat16, seed=seed), tiny.llava(seed=seed)
        full.model.load_state_dict({name: weight.float() for name, weight in half.model.state_dict().items()})
        exact = decoded(full, *BATCHES[batch])
        for faster[0] in errors:
            errors[faster[0]] += float((decoded(half, *BATCHES[batch]) - exact).square().mean())
    assert 0 < errors[True] < 1.2 * errors[False]


def decoded(family, prompts, images):
    """Logits of a given answer."""
    runner = SegmentRunner(family, build_prompt(family, prompts, everything(family, sum(images))), [], 12)
    with torch.inference_mode(), runner.hooks():
        runner.prefill()
        return torch.stack([runner.step(torch.full((len(prompts),), token)) for token in range(7, 19)]).float()


@pytest.mark.parametrize("second", ["thin", "segments", "static"])
@pytest.mark.parametrize("first", [True, False])
def test_a_prefix_is_used_again_whatever_type_it_was_held_in(faster, first, second):
    family = tiny.llava(dtype=torch.bfloat16, seed=76)
    _, expected = run(family, everything(family, 1), ["what is left of it?"], loop="thin")
    tokens = everything(family, 1)
    faster[0] = first
    run(family, tokens, ["what is it?"], loop="segments")
    faster[0] = True
    again, logits = run(family, tokens, ["what is left of it?"], loop=second)
    assert again.reused and again.kv_lengths[0] * len(family.layers) * 2 * 16 * (4 if second == "segments" else 2) == (
        again.kv_bytes
    )
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_model_is_as_before_also_after_an_error(faster):
    family = tiny.llava(dtype=torch.bfloat16, seed=77)
    tokens, before, seen = everything(family, 1), fingerprint(family), []

    def stop(ids, _logits):
        seen.append(family.layers[0].self_attn.config._attn_implementation)
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        generate(family, tokens, ["x"], [fastv(2, 0.5)], on_step=stop)
    assert "sdpa" not in seen and fingerprint(family) == before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"].__module__.startswith("transformers")
