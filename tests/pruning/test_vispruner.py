"""VisPruner against a slow, obvious implementation of the published rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.distinct_prune import DistinctPrune
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning import vispruner
from fopru_graph.pruning.vispruner import distinct
from fopru_graph.values import Selection
from tests.pruning.test_visionzip import cosine
from tests.pruning.tiles import lists, random_tiles, ranked


def distinct_by_hand(features, order, count):
    """Drop up to eight similar tokens of the even places at a time until ``count`` of ``order`` are left."""
    cosines = {(i, j): round(cosine(features[i], features[j]), 5) for i in order for j in order}
    left = list(order)
    while count and len(left) > count:
        even, odd = left[::2], left[1::2]
        closest = {i: max(cosines[i, j] for j in odd) for i in even}
        most_alike = sorted(even, key=lambda i: (-closest[i], -left.index(i)))[: min(8, len(left) - count)]
        left = [i for i in even if i not in most_alike] + odd
    return [i for i in order if i in left[:count]]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([0.03, 0.3, 0.7, 1.0]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99))
def test_the_bricks_together_equal_the_rule_in_every_tile(ratio, share, seed):
    """Tiles of equal and of different sizes, with an odd and an even number of tokens left over."""
    features, scores = random_tiles((4, 6), (5, 5), (1, 1), (5, 5), (2, 7), seed=seed)
    budgets = Budget()(features=features, ratio=ratio, share=share)
    important = RankPrune()(significance=scores, budget=budgets.part)
    kept = DistinctPrune()(features=features, significance=scores, budget=budgets.whole, start=important)
    for i, tile in enumerate(features.tiles):
        first = important.indices[i].tolist()
        others = [j for j in ranked(scores.scores[i]) if j not in first]
        rest = distinct_by_hand(tile.features.double(), others, budgets.whole.counts[i] - len(first))
        assert kept.indices[i].tolist() == first + rest


def test_with_all_of_the_budget_important_it_is_the_ranking_by_cls_attention():
    features, _ = random_tiles((4, 6), (3, 3))
    scores = ClsAttention()(features=features)
    budgets = Budget()(features=features, ratio=0.4, share=1.0)
    start = RankPrune()(significance=scores, budget=budgets.part)
    kept = DistinctPrune()(features=features, significance=scores, budget=budgets.whole, start=start)
    assert lists(kept.indices) == lists(RankPrune()(significance=scores, ratio=0.4).indices)


def test_of_two_equal_tokens_one_goes_before_any_other():
    features = torch.eye(6)
    features[3] = features[0]  # at places of different parity, else they would not meet in the first round
    assert distinct(features[None], 5).tolist() == [[1, 2, 3, 4, 5]]
    features = torch.eye(6)
    features[1], features[5] = features[0], features[4]  # of equally similar ones the less important goes
    assert distinct(features[None], 5).tolist() == [[0, 1, 2, 3, 5]]


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 21])
def test_any_number_is_left_of_any_number(length):
    features = torch.randn(2, length, 4, generator=torch.Generator().manual_seed(length))
    for count in range(length + 1):
        found = distinct(features, count)
        assert found.shape == (2, count) and all(len(set(row)) == count for row in found.tolist())
        assert torch.equal(found, torch.cat([distinct(each[None], count) for each in features]))


def test_tiles_are_compared_in_parts_where_memory_is_short(monkeypatch):
    features, scores = random_tiles((5, 5), (5, 5), (5, 5), (4, 4))
    whole = DistinctPrune()(features=features, significance=scores, ratio=0.3)
    monkeypatch.setattr(vispruner, "queries_at_a_time", lambda device, row: 2)
    parts = DistinctPrune()(features=features, significance=scores, ratio=0.3)
    assert lists(whole.indices) == lists(parts.indices)


def test_tiles_of_one_picture_may_differ_in_width():
    features, scores = random_tiles((5, 5), (5, 5))
    wide = replace(features.tiles[1], features=torch.cat([features.tiles[1].features, torch.zeros(25, 3)], 1))
    kept = DistinctPrune()(features=features.with_tiles((features.tiles[0], wide)), significance=scores, ratio=0.3)
    assert lists(kept.indices) == lists(DistinctPrune()(features=features, significance=scores, ratio=0.3).indices)


def test_half_precision_features_are_compared_in_float32():
    generator = torch.Generator().manual_seed(0)
    features = (1 + torch.randn(1, 64, 16, generator=generator) * 0.05).bfloat16()
    assert torch.equal(distinct(features, 20), distinct(features.float(), 20))


def test_values_of_other_tiles_are_refused():
    features, scores = random_tiles((2, 2))
    other, _ = random_tiles((2, 3))
    with pytest.raises(UserError, match="different tokens"):
        DistinctPrune()(features=other, significance=scores)
    with pytest.raises(UserError, match="kept already"):
        DistinctPrune()(features=features, significance=scores, start=Selection((torch.tensor([0]),), (5,)))
