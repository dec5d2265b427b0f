"""HiPrune against a slow, obvious implementation of the published rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.anchor_prune import AnchorPrune
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance as Scorer
from fopru_graph.pruning.hiprune import anchors
from fopru_graph.values import Significance
from tests import tiny
from tests.pruning.tiles import lists, random_tiles, ranked


def anchors_by_hand(scores, grid, budget):
    high, wide = grid
    kept = set()
    for best in ranked(scores)[: math.floor(budget / 5 + 0.5)]:
        row, column = divmod(best, wide)
        for r, c in ((row, column), (row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)):
            if 0 <= r < high and 0 <= c < wide:
                kept.add(r * wide + c)
    return sorted(kept)


def hiprune_by_hand(shallow, deep, grid, count, alpha):
    first = anchors_by_hand(shallow, grid, math.floor(count * alpha + 0.5))[:count]
    others = [i for i in ranked(deep) if i not in first]
    return first + others[: count - len(first)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 64), st.integers(0, 99))
def test_anchors_and_their_neighbours_equal_a_loop(high, wide, budget, seed):
    scores = torch.randint(0, 6, (high * wide,), generator=torch.Generator().manual_seed(seed)).float()
    (found,) = anchors([scores], [(high, wide)], [budget])
    assert found.tolist() == anchors_by_hand(scores, (high, wide), budget)


def test_neighbours_end_at_the_edge_and_do_not_wrap_into_the_next_row():
    scores = torch.zeros(12)
    scores[3] = 1  # the right end of the upper row of 3 × 4
    assert lists(anchors([scores], [(3, 4)], [5])) == [[2, 3, 7]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.05, 0.25, 0.6, 1.0]), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 99))
def test_the_bricks_together_equal_the_rule_in_every_tile(ratio, alpha, seed):
    grids = ((4, 6), (5, 5), (1, 1), (1, 7))
    features, deep = random_tiles(*grids, seed=seed)
    _, shallow = random_tiles(*grids, seed=seed + 1000)
    budgets = Budget()(features=features, ratio=ratio, share=alpha)
    first = AnchorPrune()(significance=shallow, budget=budgets.part)
    kept = RankPrune()(significance=deep, budget=budgets.whole, start=first)
    for tile, found in enumerate(kept.indices):
        whole = budgets.whole.counts[tile]
        assert found.tolist() == hiprune_by_hand(shallow.scores[tile], deep.scores[tile], grids[tile], whole, alpha)
    if alpha == 0:
        assert lists(kept.indices) == lists(RankPrune()(significance=deep, ratio=ratio).indices)


def test_rounding_twice_is_rounding_once():
    """The budget's part is a whole number before a fifth of it is taken; the published rule rounds k · α / 5."""
    for count in range(1, 3000):
        part = math.floor(count * 0.1 + 0.5)
        assert math.floor(part / 5 + 0.5) == math.floor((2 * count + 50) / 100)  # count / 50, rounded, without floats


def test_a_ratio_of_its_own_and_scores_that_fit_no_grid():
    features, scores = random_tiles((4, 5))
    found = AnchorPrune()(significance=scores, ratio=0.5)
    assert lists(found.indices) == [anchors_by_hand(scores.scores[0], (4, 5), 10)]
    with pytest.raises(UserError, match="4 × 5"):
        AnchorPrune()(significance=Significance((torch.zeros(19),), ((4, 5),), ("x",)))


def test_without_anchors_it_keeps_what_foprus_rank_strategy_keeps():
    """Of a real encoder, where FoPru takes the attention received because it varies more."""
    family = tiny.llava(vision_layers=6, vision_feature_layer=-2)
    features = family.encode_layers([tiny.image(0), tiny.image(1)], [0.333])
    shallow = Scorer()(features=features, direction="received", layer=0.333)
    deep, fopru = Scorer()(features=features, direction="received"), Scorer()(features=features)

    def kept(share):
        budgets = Budget()(features=features, ratio=0.5, share=share)
        first = AnchorPrune()(significance=shallow, budget=budgets.part)
        return lists(RankPrune()(significance=deep, budget=budgets.whole, start=first).indices)

    assert kept(0.0) == lists(RankPrune()(significance=fopru, ratio=0.5).indices)
    assert sorted(kept(0.0)[0]) != sorted(kept(0.9)[0])
