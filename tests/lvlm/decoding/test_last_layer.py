"""The last layer of a prefill runs for the last position only, in half precision on a CPU, and says nearly the same."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding.segments import SegmentRunner
from fopru_graph.lvlm.inputs.prompt import build_prompt
from tests import tiny
from tests.lvlm.test_invariants import BATCHES, everything, fastv, run, some

DECODERS = {
    "llama": {},
    "llama, eager": {"attention": "eager"},
    "mistral": {"text": "mistral", "sliding_window": 9},
    "qwen2": {"text": "qwen2", "layers": 6, "sliding_window": 10},
    "qwen3": {"text": "qwen3", "kv_heads": 1},
}
CUTS = {"none": [], "middle": [(2, 0.5)], "at the last layer": [(2, 0.7), (4, 0.5)]}


def rows(family, ran):
    """Let each part of the last layer, and the one below, tell in ``ran`` how many positions it runs for."""
    layer = family.layers[-1]
    parts = {"queries": layer.self_attn.q_proj, "keys": layer.self_attn.k_proj, "output": layer.self_attn.o_proj}
    parts |= {"mlp": layer.mlp.down_proj, "below": family.layers[-2].mlp.down_proj}
    for name, part in parts.items():
        part.register_forward_hook(lambda _part, inputs, _out, name=name: ran.append((name, inputs[0].shape[1])))


def test_attention_and_mlp_of_the_last_layer_get_one_position_and_keys_all():
    ran = []
    family = tiny.llava(dtype=torch.bfloat16)
    rows(family, ran)
    generation, _ = run(family, everything(family, 1), ["what?"])
    length = generation.kv_lengths[-1] - 4
    prefill = ran[: ran.index(("mlp", 1)) + 1]
    assert [count for name, count in prefill if name == "below"] == [length]
    assert [count for name, count in prefill if name == "keys"] == [length, 1]
    assert [count for name, count in prefill if name in ("output", "mlp")] == [1, 1]


def test_in_float32_the_last_layer_runs_whole_as_stocks_does():
    ran = []
    family = tiny.llava()
    rows(family, ran)
    generation, _ = run(family, everything(family, 1), ["what?"])
    assert ran[0] == ("below", generation.kv_lengths[-1] - 4)
    assert [count for _, count in ran[1:5]] == [ran[0][1]] * 4


def test_one_position_is_run_once():
    """A prompt of which all but the last token is known has one row: nothing to leave out."""
    family = tiny.llava(dtype=torch.bfloat16, seed=3)
    tokens = everything(family, 1)
    run(family, tokens, ["what is it?"])
    ran = []
    rows(family, ran)
    again, _ = run(family, tokens, ["what is it?"])
    assert again.reused == again.kv_lengths[0] - 5
    assert ran[:5] == [(name, 1) for name in ("below", "queries", "keys", "output", "mlp")]


@pytest.mark.parametrize("config", DECODERS)
@pytest.mark.parametrize("batch", ["one", "padded batch, unequal images"])
@pytest.mark.parametrize("cuts", CUTS)
def test_in_float32_it_would_round_otherwise_and_no_more(monkeypatch, config, batch, cuts):
    """Bit for bit the same keys, values and choice of tokens; logits to 1e-5 of the largest."""
    found = []
    for trimmed in (False, True):
        monkeypatch.setattr(SegmentRunner, "_only_last_position", lambda *_, trimmed=trimmed: trimmed)
        family = tiny.llava(**{"seed": 60} | DECODERS[config])
        prompts, images = BATCHES[batch]
        prompt = build_prompt(family, prompts, some(family, sum(images), 0.75))
        runner = SegmentRunner(family, prompt, [fastv(*cut) for cut in CUTS[cuts]], 3)
        with torch.inference_mode():
            logits = [runner.prefill(), runner.step(torch.full((len(prompts),), 7))]
        found.append((torch.stack(logits), runner.filled(), runner.cuts.at(4).positions))
    (whole, filled, kept), (nearly, again, same) = found
    assert (nearly - whole).abs().max() < 1e-5 * whole.abs().max()
    assert torch.equal(kept, same)
    for old, new in zip(filled, again, strict=True):
        for part, twin in zip(old, new, strict=True):
            assert torch.equal(part[:, :, :-1], twin[:, :, :-1])


def test_in_bfloat16_logits_are_as_near_to_float32_as_those_of_the_stock_forward():
    errors = {"thin": 0.0, "segments": 0.0}
    for seed, (prompts, images) in enumerate(BATCHES.values(), 61):
        half, full = tiny.llava(dtype=torch.bfloat16, seed=seed), tiny.llava(seed=seed)
        full.model.load_state_dict({name: weight.float() for name, weight in half.model.state_dict().items()})
        _, exact = run(full, everything(full, sum(images)), prompts, loop="thin")
        for loop in errors:
            _, logits = run(half, everything(half, sum(images)), prompts, loop=loop)
            errors[loop] += float((logits[:, 0].float() - exact[:, 0]).square().mean())
            half.forget()
    assert 0 < errors["segments"] < 1.2 * errors["thin"]


def test_a_second_question_is_answered_after_the_keys_of_all_its_positions():
    family = tiny.llava(dtype=torch.bfloat16, seed=66)
    tokens = everything(family, 1)
    fresh, expected = run(family, everything(family, 1), ["what is left of it?"], loop="thin")
    run(family, tokens, ["what is it?"])
    second, logits = run(family, tokens, ["what is left of it?"])
    assert second.reused and second.kv_lengths == fresh.kv_lengths
    assert (logits[:, 0] - expected[:, 0]).abs().max() < 0.05 * expected.abs().max()
