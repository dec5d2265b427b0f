"""Nodes that share one budget: what it is, and what is left of it for the rule that fills it up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.graph import PipelineError
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import Budget as Counts
from fopru_graph.values import Selection, Significance, Tile, TileAttention, VisionFeatures

tiles = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=4)  # few values: many ties


def scored(values, images=None):
    scores = tuple(torch.tensor(tile).float() for tile in values)
    return Significance(scores, tuple((1, len(tile)) for tile in scores), ("x",) * len(scores), tuple(images or ()))


def features_of(*counts):
    none = torch.zeros(1, 1, 1)
    tile_of = [Tile(torch.zeros(count, 2), (1, count), 0, TileAttention(none, none, 1.0, 0)) for count in counts]
    return VisionFeatures(tuple(tile_of), ())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0.001, 1.0), st.floats(0, 1))
def test_a_part_is_its_share_of_every_tiles_budget(counts, ratio, share):
    budgets = Budget()(features=features_of(*counts), ratio=ratio, share=share)
    assert budgets.whole.counts == tuple(kept_count(count, ratio) for count in counts)
    assert budgets.part.counts == tuple(math.floor(share * whole + 0.5) for whole in budgets.whole.counts)


def test_a_number_of_tokens_wins_and_the_share_may_be_all_or_nothing():
    features = features_of(10, 3)
    assert Budget()(features=features, tokens=5, share=0.1).whole == Counts((5, 3))
    assert Budget()(features=features, tokens=5, share=0.1).part == Counts((1, 0))  # a half is rounded up
    assert Budget()(features=features, ratio=1.0, share=1.0).part == Counts((10, 3))
    assert Budget()(features=features, ratio=1.0, share=0.0).part == Counts((0, 0))
    with pytest.raises(PipelineError, match="share"):
        Budget()(features=features, share=1.1)


@settings(max_examples=200, deadline=None)
@given(tiles, st.data())
def test_tokens_kept_already_come_first_and_the_best_of_the_others_fill_up(values, data):
    counts = [data.draw(st.integers(0, len(tile))) for tile in values]
    start = [data.draw(st.permutations(range(len(tile))))[: data.draw(st.integers(0, len(tile)))] for tile in values]
    given_ = Selection(tuple(torch.tensor(tile, dtype=torch.int64) for tile in start), tuple(map(len, values)))
    found = RankPrune()(significance=scored(values), ratio=0.1, budget=Counts(tuple(counts)), start=given_)
    for tile, first, count, kept in zip(values, start, counts, found.indices, strict=True):
        others = sorted(set(range(len(tile))) - set(first), key=lambda i: (-tile[i], i))
        assert kept.tolist() == (first + others)[:count]
    without = RankPrune()(significance=scored(values), budget=Counts(tuple(counts)))
    for tile, count, kept in zip(values, counts, without.indices, strict=True):
        assert kept.tolist() == sorted(range(len(tile)), key=lambda i: (-tile[i], i))[:count]


def test_over_an_image_its_tiles_budgets_are_summed():
    found = scored([[9, 8, 7, 6], [1, 2, 3, 4], [0, 0, 5, 0]], images=(0, 0, 1))
    kept = RankPrune()(significance=found, over="image", budget=Counts((1, 2, 1)))
    assert [tile.tolist() for tile in kept.indices] == [[0, 1, 2], [], [2]]
    start = Selection((torch.tensor([], dtype=torch.int64), torch.tensor([1]), torch.tensor([0])), (4, 4, 4))
    kept = RankPrune()(significance=found, over="image", budget=Counts((1, 2, 1)), start=start)
    assert [tile.tolist() for tile in kept.indices] == [[0, 1], [1], [0]]


def test_a_budget_or_a_beginning_of_other_tiles_is_refused():
    with pytest.raises(UserError, match="budget is for 2 tiles") as refused:
        RankPrune()(significance=scored([[1, 2]]), budget=Counts((1, 1)))
    assert "same VisionEncode" in refused.value.hint
    with pytest.raises(UserError, match="kept already") as refused:
        RankPrune()(significance=scored([[1, 2]]), start=Selection((torch.tensor([0]),), (3,)))
    assert "same VisionEncode" in refused.value.hint
