"""HoloV against a slow, obvious implementation of its rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.pruning.holov import holov_select
from fopru_graph.pruning.select import rank_select
from tests.pruning.test_groups import shared_by_hand


def holov_by_hand(features, scores, kept, chunks=16, weight=0.09):
    vectors, count = features.double().tolist(), len(scores)
    scores = scores.double().tolist()
    chunks = min(count, chunks)
    members = [[i for i in range(count) if i * chunks // count == chunk] for chunk in range(chunks)]
    variances = [0.0] * count
    for chunk in members:
        for i in chunk:
            cosines = [cosine(vectors[i], vectors[j]) for j in chunk if j != i]
            if cosines:
                mean = sum(cosines) / len(cosines)
                variances[i] = sum((value - mean) ** 2 for value in cosines) / len(cosines)
    mean_score, mean_variance = sum(scores) / count, sum(variances) / count
    terms = [
        1000 * a + weight * (v * 1000 * mean_score / mean_variance if mean_variance > 1e-12 else 0.0)
        for a, v in zip(scores, variances, strict=True)
    ]
    quotas = shared_by_hand(
        kept, [sum(terms[i] for i in chunk) / len(chunk) for chunk in members], list(map(len, members))
    )
    return [
        i
        for chunk, quota in zip(members, quotas, strict=True)
        for i in sorted(chunk, key=lambda i: (-scores[i], i))[:quota]
    ]


def cosine(left, right):
    norms = math.hypot(*left) * math.hypot(*right)
    return sum(a * b for a, b in zip(left, right, strict=True)) / norms if norms else 0.0


def drawn(count, seed, width=6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, generator=generator)
    scores = torch.randint(0, 6, (count,), generator=generator) / 8  # ties
    return features, scores


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 20), st.data())
def test_holov_equals_its_rule_in_loops(count, chunks, data):
    features, scores = drawn(count, data.draw(st.integers(0, 2**31)))
    features[data.draw(st.integers(0, count - 1))] = 0  # a vector without direction
    features[count // 2 :: 3] = features[0].clone()  # duplicates
    kept = data.draw(st.integers(1, count))
    weight = data.draw(st.sampled_from([0.0, 0.09, 3.0]))
    found = holov_select(features, scores, kept, chunks, weight).tolist()
    assert found == holov_by_hand(features, scores, kept, chunks, weight)
    assert len(set(found)) == kept


def test_one_chunk_is_the_attention_ranking():
    features, scores = drawn(90, 1)
    assert torch.equal(holov_select(features, scores, 23, chunks=1), rank_select(scores, tokens=23))


@pytest.mark.parametrize("chunks", [1, 16, 200])
def test_all_tokens_are_all_tokens(chunks):
    features, scores = drawn(50, 2)
    assert holov_select(features, scores, 50, chunks).sort().values.tolist() == list(range(50))


@pytest.mark.parametrize("same", [torch.ones(64, 5), torch.zeros(64, 5)])
def test_equal_tokens_without_attention_share_the_budget_equally(same):
    found = holov_select(same, torch.zeros(64), 32)
    assert torch.bincount(found // 4).tolist() == [2] * 16


def test_the_variance_moves_quotas_only():
    """A chunk of unlike tokens gets more of the budget; which of its tokens stay is for the attention to say."""
    features = torch.ones(32, 8)
    features[16:] = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))
    scores = torch.arange(32.0).flip(0) % 16 + 1
    without, much = (holov_select(features, scores, 16, 2, weight) for weight in (0.0, 5.0))
    assert without.tolist() == [*range(8), *range(16, 24)]
    kept = len(much[much >= 16])
    assert kept > 8 and much.tolist() == [*range(16 - kept), *range(16, 16 + kept)]


def test_half_precision_is_compared_in_float32():
    features, scores = drawn(64, 4, width=32)
    half = features.bfloat16()
    found = holov_select(half, scores.bfloat16(), 20)
    assert torch.equal(found, holov_select(half.float(), scores, 20))


def test_the_qwen_rule_takes_fewer_chunks_the_more_is_kept():
    features, scores = drawn(64, 5)
    for kept, chunks in ((64, 1), (16, 7), (7, 16), (1, 64)):  # ⌊1024 · 64 / (576 · kept)⌋, at most 64
        assert torch.equal(holov_select(features, scores, kept, None), holov_select(features, scores, kept, chunks))
