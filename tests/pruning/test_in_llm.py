"""FastV's score and the positions that survive a cut, against slow, obvious implementations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.pruning.in_llm import last_token_attention, surviving_positions
from fopru_graph.pruning.select import kept_count

ratios = st.floats(0.001, 1.0)


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
    ours = last_token_attention(query, key, 0.5, mask)
    for b in range(2):
        expected = torch.zeros(7, dtype=torch.float64)
        for h in range(4):
            logits = [float(query[b, h, -1].double() @ key[b, h * groups // 4, j].double()) * 0.5 for j in range(7)]
            weights = [math.exp(x) if live[b, j] else 0.0 for j, x in enumerate(logits)]
            expected += torch.tensor(weights, dtype=torch.float64) / sum(weights) / 4
        assert torch.allclose(ours[b].double(), expected, atol=1e-6)


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
