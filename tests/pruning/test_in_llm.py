"""FastV's score and the positions that survive a cut, against slow, obvious implementations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.pruning.in_llm import last_token_attention, surviving_positions
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import LayerView

ratios = st.floats(0.001, 1.0)


def attention_of(query, key, scale, mask=None):
    nothing = torch.empty(0)
    return last_token_attention(LayerView(1, query, key, nothing, scale, mask, *[nothing] * 4))


@pytest.mark.parametrize("kind", ["none", "bool", "float", "two-dimensional"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_last_token_attention_equals_softmax_by_hand(kind, groups):
    generator = torch.Generator().manual_seed(groups)
    query, key = torch.randn(2, 4, 7, 8, generator=generator), torch.randn(2, groups, 7, 8, generator=generator)
    live = torch.ones(2, 7, dtype=torch.bool)
    if kind != "none":
        live[1, :3] = False
    causal = live[:, None, None, :] & torch.ones(7, 7, dtype=torch.bool).tril()
    mask = {
        "none": None,
        "bool": causal,
        "float": torch.zeros(2, 1, 7, 7).masked_fill(~causal, torch.finfo(torch.float32).min),
        "two-dimensional": live.long(),
    }[kind]
    ours = attention_of(query, key, 0.5, mask)
    for b in range(2):
        expected = torch.zeros(7, dtype=torch.float64)
        for h in range(4):
            logits = [float(query[b, h, -1].double() @ key[b, h * groups // 4, j].double()) * 0.5 for j in range(7)]
            weights = [math.exp(x) if live[b, j] else 0.0 for j, x in enumerate(logits)]
            expected += torch.tensor(weights, dtype=torch.float64) / sum(weights) / 4
        assert torch.allclose(ours[b].double(), expected, atol=1e-6)


def exact(query, key, scale):
    """The score in double precision, of the same rounded numbers."""
    heads = query.shape[1] // key.shape[1]
    logits = query[:, :, -1:].double() @ key.double().repeat_interleave(heads, 1).transpose(-1, -2) * scale
    return torch.softmax(logits, -1)[:, :, 0].mean(1)


def test_logits_that_overflow_float16_rank_as_they_should():
    query, key = torch.full((1, 2, 9, 64), 40.0).half(), torch.full((1, 1, 9, 64), 40.0).half()
    key[:, :, 6, :8] = 40.5
    assert (query.float() @ key.float().transpose(-1, -2)).max() > torch.finfo(torch.float16).max
    scores = attention_of(query, key, 1 / 8)
    assert scores.isfinite().all() and scores.argmax() == 6
    assert torch.allclose(scores.double(), exact(query, key, 1 / 8), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_that_tie_in_half_precision_rank_as_they_should(dtype):
    query = torch.full((1, 4, 12, 64), 8.0, dtype=dtype)
    key = torch.full((1, 2, 12, 64), 8.0, dtype=dtype)
    for token in range(12):  # logits of 512 and a little, which both types round to the same number
        key[:, :, token, 0] += token * 4 * 2**-5 if dtype == torch.bfloat16 else token * 2**-7
    rounded = (query[0, 0, -1] @ key[0, 0].T) / 8
    assert len(rounded.unique()) < 12
    scores = attention_of(query, key, 1 / 8)
    assert scores[0].argsort(descending=True).tolist() == list(range(11, -1, -1))
    assert torch.allclose(scores.double(), exact(query, key, 1 / 8), atol=1e-6)


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float16).min, -torch.inf])
def test_what_a_half_precision_mask_hides_is_hidden_among_any_logits(lowest):
    """Hidden keys with logits far above the others': adding −65504 in float32 would leave them on top."""
    query, key = torch.full((1, 1, 4, 64), 60.0).half(), torch.full((1, 1, 4, 64), -60.0).half()
    key[:, :, :2] = 60.0
    mask = torch.zeros(1, 1, 4, 4).half()
    mask[..., :2] = lowest
    scores = attention_of(query, key, 1.0, mask)
    assert scores[0].tolist() == [0.0, 0.0, 0.5, 0.5]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(2, 20), ratios, st.integers(0, 2**31))
def test_survivors_equal_choosing_by_hand(batch, length, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 5, (batch, length), generator=generator).float()
    valid = torch.ones(batch, length, dtype=torch.bool)
    for b in range(batch):
        valid[b, : int(torch.randint(0, length // 2 + 1, (1,), generator=generator))] = False
    visual = (torch.rand(batch, length, generator=generator) < 0.6) & valid
    counts = [(int((valid[b] & ~visual[b]).sum()), int(visual[b].sum())) for b in range(batch)]
    kept_counts = [text + kept_count(seen, ratio) for text, seen in counts]
    positions, real = surviving_positions(scores, visual, valid, kept_counts)
    for b in range(batch):
        seen = [i for i in range(length) if visual[b, i]]
        best = sorted(seen, key=lambda i: (-scores[b, i].item(), i))
        kept = set(best[: max(1, math.floor(len(seen) * ratio + 1e-6))]) if seen else set()
        expected = [i for i in range(length) if valid[b, i] and (i not in seen or i in kept)]
        assert positions[b][real[b]].tolist() == expected
        assert not real[b].tolist()[: real.shape[1] - len(expected)].count(True)
