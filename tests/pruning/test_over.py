"""A budget over several tiles at once, and weighted pooling, against slow, obvious implementations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.pruning.over import groups_of, rank_select_over, row_select_over
from fopru_graph.pruning.pool_scores import pool_scores
from fopru_graph.pruning.rank import rank_select
from fopru_graph.pruning.row import row_select
from fopru_graph.values import Significance

ratios = st.floats(0.01, 1.0)
tiles = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=5)  # few values: many ties


@settings(max_examples=100, deadline=None)
@given(tiles, ratios, st.none() | st.integers(1, 30))
def test_rank_over_equals_sorting_by_hand(values, ratio, tokens):
    chosen = rank_select_over([torch.tensor(one).float() for one in values], ratio, tokens)
    pairs = [(tile, index) for tile, one in enumerate(values) for index in range(len(one))]
    pairs.sort(key=lambda pair: (-values[pair[0]][pair[1]], pair))
    kept = tokens or max(1, math.floor(len(pairs) * ratio + 1e-6))
    expected = [[index for t, index in pairs[:kept] if t == tile] for tile in range(len(values))]
    assert [one.tolist() for one in chosen] == expected
    assert sum(map(len, chosen)) == min(kept, len(pairs))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_row_over_equals_sorting_by_hand(width, heights, data):
    ratio, tokens = data.draw(ratios), data.draw(st.none() | st.integers(1, 40))
    grid = st.integers(0, 3)
    values = [[[data.draw(grid) for _ in range(width)] for _ in range(height)] for height in heights]
    scores = [torch.tensor(one).float().flatten() for one in values]
    chosen = row_select_over(scores, [(height, width) for height in heights], ratio, tokens)
    rows = [(tile, row) for tile, one in enumerate(values) for row in range(len(one))]
    rows.sort(key=lambda pair: (-sum(values[pair[0]][pair[1]]), pair))
    kept = max(1, math.floor(len(rows) * ratio + 1e-6) if tokens is None else tokens // width)
    for tile, one in enumerate(chosen):
        expected = [row * width + column for t, row in rows[:kept] if t == tile for column in range(width)]
        assert one.tolist() == expected


def test_one_tile_alone_is_pruned_as_before():
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0))
    assert rank_select_over([scores], 0.3)[0].tolist() == rank_select(scores, 0.3).tolist()
    assert row_select_over([scores], [(3, 4)], 0.7)[0].tolist() == row_select(scores, (3, 4), 0.7).tolist()


def test_groups_are_tiles_or_images():
    assert groups_of(4, (0, 0, 1, 0), "tile") == [[0], [1], [2], [3]]
    assert groups_of(4, (0, 0, 1, 0), "image") == [[0, 1, 3], [2]]
    assert groups_of(2, (), "tile") == [[0], [1]]
    with pytest.raises(UserError, match="which image"):
        groups_of(2, (), "image")
    with pytest.raises(UserError, match="everything"):
        groups_of(2, (0, 1), "everything")


def test_impossible_rows_are_refused():
    with pytest.raises(UserError, match=r"\[2, 3\]"):
        row_select_over([torch.zeros(6), torch.zeros(6)], [(2, 3), (3, 2)], 0.5)
    with pytest.raises(UserError, match="3 × 3"):
        row_select_over([torch.zeros(9), torch.zeros(6)], [(3, 3), (3, 3)], 0.5)
    with pytest.raises(UserError):
        rank_select_over([torch.zeros(6)], 0.0)


SCORES = (torch.tensor([9.0, 8, 7, 6]), torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 0, 5, 0]))


def test_the_nodes_spend_the_budget_over_an_image():
    found = Significance(SCORES, ((2, 2),) * 3, ("x",) * 3, (0, 0, 1))
    by_tile, by_image = (RankPrune()(significance=found, ratio=0.5, over=over) for over in ("tile", "image"))
    assert [one.tolist() for one in by_tile.indices] == [[0, 1], [3, 2], [2, 0]]
    assert [one.tolist() for one in by_image.indices] == [[0, 1, 2, 3], [], [2, 0]]
    assert by_tile.counts == by_image.counts == (4, 4, 4)
    assert [one.tolist() for one in RankPrune()(significance=found, tokens=1, over="image").indices] == [[0], [], [2]]
    by_tile, by_image = (RowPrune()(significance=found, ratio=0.5, over=over) for over in ("tile", "image"))
    assert [one.tolist() for one in by_tile.indices] == [[0, 1], [2, 3], [2, 3]]
    assert [one.tolist() for one in by_image.indices] == [[0, 1, 2, 3], [], [2, 3]]


def test_a_scorer_that_names_no_images_is_pruned_tile_by_tile():
    found = Significance(SCORES, ((2, 2),) * 3, ("x",) * 3)
    assert [len(one) for one in RankPrune()(significance=found, ratio=0.5).indices] == [2, 2, 2]
    assert [len(one) for one in RowPrune()(significance=found, ratio=0.5).indices] == [2, 2, 2]
    for pruner in (RankPrune, RowPrune):
        with pytest.raises(UserError, match="which image"):
            pruner()(significance=found, ratio=0.5, over="image")


def test_weighted_pooling_equals_the_sum_by_hand():
    scores, units = torch.tensor([1.0, 2, 4, 8]), torch.tensor([[0, 1], [3, 3]])
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert pool_scores(scores, units, weights).tolist() == [1.75, 8.0]
    assert pool_scores(scores, units).tolist() == [1.5, 8.0]
    assert pool_scores(scores, None) is scores
