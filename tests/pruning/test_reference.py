"""Every method against an independent, slow, obvious implementation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.pruning.attention import attention_means
from fopru_graph.pruning.budget import kept_count
from fopru_graph.pruning.fastv import last_row_attention
from fopru_graph.pruning.in_llm import surviving_positions
from fopru_graph.pruning.rank import rank_select
from fopru_graph.pruning.reorder import reorder
from fopru_graph.pruning.row import row_select
from fopru_graph.pruning.significance import significance


def slow_map(query, key, scale):
    """The head-averaged attention map, one entry at a time, in float64."""
    heads, count, _ = query.shape
    total = torch.zeros(count, count, dtype=torch.float64)
    for h in range(heads):
        for i in range(count):
            logits = [float(query[h, i].double() @ key[h, j].double()) * scale for j in range(count)]
            peak = max(logits)
            weights = [math.exp(x - peak) for x in logits]
            for j in range(count):
                total[i, j] += weights[j] / sum(weights) / heads
    return total


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("block", [1, 100, 10_000])  # one row at a time, a few, all
def test_attention_means_equal_the_full_map(prefix, block):
    generator = torch.Generator().manual_seed(prefix)
    query, key = torch.randn(2, 3, prefix + 9, 8, generator=generator)
    given_, received = attention_means(query, key, 0.3, prefix, block)
    full = slow_map(query, key, 0.3)[prefix:, prefix:]
    for i in range(9):
        assert given_[i].item() == pytest.approx(sum(full[i, j].item() for j in range(9)) / 9, abs=1e-6)
        assert received[i].item() == pytest.approx(sum(full[j, i].item() for j in range(9)) / 9, abs=1e-6)


def test_without_a_prefix_given_is_constant_so_received_wins():
    query, key = torch.randn(2, 4, 25, 8, generator=torch.Generator().manual_seed(0))
    given_, received = attention_means(query, key, 1.0)
    assert given_.std() < 1e-7 < received.std()
    assert significance(given_, received)[1]


def test_the_larger_variance_wins_and_a_tie_goes_to_received():
    flat, spread = torch.full((4,), 0.5), torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert not significance(spread, flat)[1]
    assert significance(flat, spread)[1]
    scores, side = significance(spread, spread.flip(0))
    assert side
    assert torch.equal(scores, spread.flip(0))
    assert torch.equal(significance(spread, flat, "received")[0], flat)
    with pytest.raises(UserError, match="sideways"):
        significance(flat, spread, "sideways")


# Ties are the point: few distinct values, so that most examples have some.
tied_scores = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda v: torch.tensor(v, dtype=torch.float32))
ratios = st.floats(0.001, 1.0)


@settings(max_examples=200, deadline=None)
@given(tied_scores, ratios)
def test_rank_equals_sorting_by_hand(scores, ratio):
    by_hand = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))
    kept = max(1, math.floor(len(scores) * ratio + 1e-6))
    assert rank_select(scores, ratio).tolist() == by_hand[:kept]
    assert reorder(rank_select(scores, ratio)).tolist() == sorted(by_hand[:kept])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), ratios, st.randoms(use_true_random=False))
def test_row_equals_summing_by_hand(height, width, ratio, random):
    values = [[random.randint(0, 3) for _ in range(width)] for _ in range(height)]
    by_hand = sorted(range(height), key=lambda r: (-sum(values[r]), r))
    rows = by_hand[: max(1, math.floor(height * ratio + 1e-6))]
    scores = torch.tensor(values, dtype=torch.float32).flatten()
    assert row_select(scores, (height, width), ratio).tolist() == [r * width + c for r in rows for c in range(width)]


def test_row_takes_whole_rows_of_the_true_grid():
    scores = torch.tensor([1.0, 1, 1, 0, 0, 9, 0, 0, 0, 0])
    assert row_select(scores, (2, 5), 0.5).tolist() == [5, 6, 7, 8, 9]
    assert row_select(scores, (5, 2), tokens=5).tolist() == [4, 5, 0, 1]
    assert row_select(scores, (2, 5), tokens=1).tolist() == [5, 6, 7, 8, 9]
    with pytest.raises(UserError, match="3 × 3"):
        row_select(scores, (3, 3), 0.5)


@pytest.mark.parametrize(
    ("available", "ratio", "tokens", "kept"),
    [
        (576, 0.25, None, 144),
        (576, 0.11, None, 63),  # the paper's "11 %" is 64 tokens: pass tokens=64 for it
        (576, 0.002, None, 1),
        (576, 0.001, None, 1),
        (100, 0.29, None, 29),  # 0.29 · 100 is 28.999… in binary
        (576, 1.0, None, 576),
        (576, 0.25, 64, 64),
        (10, None, 64, 10),
    ],
)
def test_budget(available, ratio, tokens, kept):
    assert kept_count(available, ratio, tokens) == kept


@pytest.mark.parametrize(
    ("ratio", "tokens"), [(None, None), (0.0, None), (-0.1, None), (1.01, None), (0.5, 0), (None, -3)]
)
def test_impossible_budgets_are_refused(ratio, tokens):
    with pytest.raises(UserError):
        kept_count(10, ratio, tokens)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "two-dimensional"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_last_row_equals_softmax_by_hand(kind, groups):
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
    ours = last_row_attention(query, key, 0.5, mask)
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
