"""Budgets, rank and row, over one tile and over several, against slow, obvious implementations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.pruning.rows import row_prune, row_select
from fopru_graph.pruning.select import kept_count, rank_prune, rank_select, reorder, tile_groups
from fopru_graph.values import Significance

# Ties are the point: few distinct values, so that most examples have some.
tied_scores = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda v: torch.tensor(v, dtype=torch.float32))
ratios = st.floats(0.001, 1.0)
tiles = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=5)  # few values: many ties


def one_image(scores, grids=None, bands=None):
    """Scores of tiles of one image; ``bands`` holds the row of tiles that each stands in."""
    grids = grids or [(1, len(tile)) for tile in scores]
    positions = tuple((band, column) for column, band in enumerate(bands or ()))
    return Significance(tuple(scores), tuple(grids), ("x",) * len(scores), (0,) * len(scores), positions)


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


@settings(max_examples=100, deadline=None)
@given(tiles, ratios, st.none() | st.integers(1, 30))
def test_rank_over_equals_sorting_by_hand(values, ratio, tokens):
    chosen = rank_prune(one_image([torch.tensor(one).float() for one in values]), ratio, tokens, "image").indices
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
    found = one_image(scores, [(height, width) for height in heights])
    chosen = row_prune(found, ratio, tokens, "image").indices
    rows = [(tile, row) for tile, one in enumerate(values) for row in range(len(one))]
    rows.sort(key=lambda pair: (-sum(values[pair[0]][pair[1]]), pair))
    kept = max(1, math.floor(len(rows) * ratio + 1e-6) if tokens is None else tokens // width)
    for tile, one in enumerate(chosen):
        expected = [row * width + column for t, row in rows[:kept] if t == tile for column in range(width)]
        assert one.tolist() == expected


def test_one_tile_alone_is_pruned_as_before():
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0))
    found = one_image([scores], [(3, 4)])
    assert rank_prune(found, 0.3, None, "image").indices[0].tolist() == rank_select(scores, 0.3).tolist()
    assert row_prune(found, 0.7, None, "image").indices[0].tolist() == row_select(scores, (3, 4), 0.7).tolist()


def test_groups_are_tiles_or_images():
    assert tile_groups(4, "tile", (0, 0, 1, 0)) == [[[0]], [[1]], [[2]], [[3]]]
    assert tile_groups(4, "image", (0, 0, 1, 0)) == [[[0], [1], [3]], [[2]]]
    assert tile_groups(2, "tile") == [[[0]], [[1]]]
    for over in ("image", "stitched"):
        with pytest.raises(UserError, match="which image"):
            tile_groups(2, over)
    with pytest.raises(UserError, match="where each of 2 tiles"):
        tile_groups(2, "stitched", (0, 0))
    with pytest.raises(UserError, match="everything"):
        tile_groups(2, "everything", (0, 1))


def test_rows_of_different_lengths_share_a_budget_of_tokens():
    wide, narrow = torch.tensor([5.0, 5, 5, 5, 5, 5, 1, 1, 1]), torch.tensor([9.0, 3, 2, 2, 7, 7])  # 3 × 3 and 3 × 2
    both = one_image([wide, narrow], [(3, 3), (3, 2)])
    # Means of the rows: 5, 5, 1 and 6, 2, 7.
    assert [kept.tolist() for kept in row_prune(both, None, 7, "image").indices] == [[0, 1, 2], [4, 5, 0, 1]]
    assert [kept.tolist() for kept in row_prune(both, None, 6, "image").indices] == [[], [4, 5, 0, 1]]
    assert [kept.tolist() for kept in row_prune(both, 0.5, None, "image").indices] == [[0, 1, 2], [4, 5, 0, 1]]
    assert [kept.tolist() for kept in row_prune(both, None, 1, "image").indices] == [[], [4, 5]]


def test_what_rows_leave_over_of_a_ratio_is_spent_in_the_next_tile_of_the_image():
    scores = [torch.rand(5 * 4, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    grids = [(5, 4)] * 5
    together = row_prune(one_image(scores, grids), 0.5, None)  # 10 tokens a tile: 2 rows, 3, 2, 3, 2
    assert [len(kept) // 4 for kept in together.indices] == [2, 3, 2, 3, 2]
    apart = row_prune(replace(one_image(scores, grids), images=(0, 1, 2, 3, 4)), 0.5, None)
    assert [len(kept) // 4 for kept in apart.indices] == [2] * 5  # a picture of one tile is pruned as in the paper
    fixed = row_prune(one_image(scores, grids), None, 10)
    assert [len(kept) // 4 for kept in fixed.indices] == [2] * 5


def test_impossible_rows_are_refused():
    with pytest.raises(UserError, match="3 × 3"):
        row_prune(one_image([torch.zeros(9), torch.zeros(6)], [(3, 3), (3, 3)]), 0.5, None, "image")
    with pytest.raises(UserError):
        rank_prune(one_image([torch.zeros(6)]), 0.0, None, "image")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 1.0), st.integers())
def test_rows_are_those_of_the_whole_picture(down, across, height, width, ratio, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    picture = torch.randint(0, 4, (down * height, across * width), generator=generator).float()  # few values: ties
    tiles = [
        picture[r * height : (r + 1) * height, c * width : (c + 1) * width].flatten()
        for r in range(down)
        for c in range(across)
    ]
    bands = [r for r in range(down) for _ in range(across)]
    found = row_prune(one_image(tiles, [(height, width)] * len(tiles), bands), ratio, None, "stitched").indices
    sums = picture.sum(1).tolist()
    ranked = sorted(range(len(sums)), key=lambda row: (-sums[row], row))
    kept = sorted(ranked[: max(1, math.floor(len(sums) * ratio + 1e-6))])
    for index, (band, indices) in enumerate(zip(bands, found, strict=True)):
        own = [row - band * height for row in kept if band * height <= row < (band + 1) * height]
        assert indices.tolist() == [row * width + column for row in own for column in range(width)], index


def test_one_stitched_tile_is_the_plain_row_strategy():
    scores = torch.rand(12, generator=torch.Generator().manual_seed(0))
    (found,) = row_prune(one_image([scores], [(4, 3)], [0]), 0.5, None, "stitched").indices
    assert found.tolist() == sorted(row_select(scores, (4, 3), 0.5).tolist())


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (8, 2), (11, 2), (100, 4)])
def test_a_number_of_tokens_is_spent_in_whole_stitched_rows(tokens, rows):
    tiles = [torch.arange(4.0) + 10 * band for band in (0, 0, 1, 1)]
    found = row_prune(one_image(tiles, [(2, 2)] * 4, [0, 0, 1, 1]), None, tokens, "stitched").indices
    assert sum(map(len, found)) == rows * 4


def test_overviews_and_frames_stand_alone():
    positions = (None, (0, 0), (0, 1), (1, 0), (1, 1), None, None)
    groups = tile_groups(7, "stitched", (0, 0, 0, 0, 0, 1, 2), positions)
    assert groups == [[[0]], [[1, 2], [3, 4]], [[5]], [[6]]]


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_half_precision_scores_are_summed_in_float32(dtype):
    """Sums beyond 65504, and sums that differ by less than half precision tells apart."""
    scores = torch.full((3, 4), 30000.0).to(dtype)
    scores[1, 0] += torch.finfo(dtype).eps * 2**15
    assert torch.isinf(scores.half().sum(1)).all()
    significance = Significance((scores.flatten(),), ((3, 4),), ("mine",))
    assert row_prune(significance, None, 4).indices[0].tolist() == [4, 5, 6, 7]
