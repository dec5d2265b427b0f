"""Pooling of the grid against one mean at a time, and against torch's own adaptive pooling."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.spatial_pool import SpatialPool
from fopru_graph.pruning.linear_merge import linear_merge
from fopru_graph.pruning.spatial_pool import pooled_grid, pooling_map
from fopru_graph.values import Tile, TileAttention, VisionFeatures

sides = st.integers(1, 12)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.data())
def test_means_equal_those_of_each_cell_by_hand(high, wide, data):
    rows, columns = data.draw(st.integers(1, high)), data.draw(st.integers(1, wide))
    features = torch.randn(high * wide, 3, generator=torch.Generator().manual_seed(high * 13 + wide))
    weights, target_indices = pooling_map((high, wide), (rows, columns))
    result = linear_merge(features, weights, target_indices)
    picture, seen = features.view(high, wide, 3), []
    for r in range(rows):
        for c in range(columns):
            top, bottom = math.floor(r * high / rows), math.ceil((r + 1) * high / rows)
            left, right = math.floor(c * wide / columns), math.ceil((c + 1) * wide / columns)
            cell = [picture[y, x] for y in range(top, bottom) for x in range(left, right)]
            middle = (top + bottom - 1) // 2 * wide + (left + right - 1) // 2
            assert torch.allclose(result[middle], sum(cell) / len(cell), atol=1e-5)
            seen.append(middle)
    assert target_indices.tolist() == seen == sorted(set(seen))
    stock = torch.nn.functional.adaptive_avg_pool2d(picture.permute(2, 0, 1), (rows, columns)).flatten(1).T
    assert torch.allclose(result[target_indices], stock, atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.001, 1.0))
def test_the_smaller_grid_fills_the_budget_and_stays_near_the_shape(high, wide, ratio):
    most = max(1, math.floor(high * wide * ratio + 1e-6))
    rows, columns = pooled_grid((high, wide), ratio)
    assert 1 <= rows <= high and 1 <= columns <= wide and rows * columns <= most
    assert columns == wide or rows * (columns + 1) > most  # no room for another column
    assert rows == high or (rows + 1) * columns > most  # nor for another row
    assert columns == min(wide, most // max(1, min(most, math.floor(math.sqrt(high * most / wide) + 1e-9))))


@pytest.mark.parametrize(
    ("grid", "ratio", "tokens", "smaller"),
    [
        ((24, 24), 0.25, None, (12, 12)),
        ((16, 16), 0.25, None, (8, 8)),
        ((24, 24), 1 / 9, None, (8, 8)),
        ((24, 24), 1.0, None, (24, 24)),
        ((7, 13), 1.0, None, (7, 13)),
        ((24, 24), 0.25, 16, (4, 4)),
        ((24, 24), 0.001, None, (1, 1)),
        ((18, 1), 0.25, None, (4, 1)),
        ((1, 18), 0.25, None, (1, 4)),
        ((10, 20), 0.25, None, (5, 10)),
        ((1, 1), 0.5, None, (1, 1)),
    ],
)
def test_grids(grid, ratio, tokens, smaller):
    assert pooled_grid(grid, ratio, tokens) == smaller


def test_an_impossible_budget_is_refused():
    with pytest.raises(UserError, match="ratio"):
        pooled_grid((4, 4), 0.0)
    with pytest.raises(UserError, match="tokens"):
        pooled_grid((4, 4), tokens=0)


def features(*grids, dtype=torch.float32):
    made = []
    for i, (high, wide) in enumerate(grids):
        drawn, deep = torch.randn(2, high * wide, 5, generator=torch.Generator().manual_seed(i)).to(dtype)
        made.append(Tile(drawn, (high, wide), i, TileAttention(drawn[None], drawn[None], 1.0, 0), (deep,)))
    return VisionFeatures(tuple(made), ())


def test_four_neighbours_become_one_in_every_tile_and_layer():
    given_ = features((4, 6), (2, 2))
    pooled = SpatialPool()(features=given_, ratio=0.25)
    assert [one.tolist() for one in pooled.selection.indices] == [[0, 2, 4, 12, 14, 16], [0]]
    for old, new in zip(given_.tiles, pooled.features.tiles, strict=True):
        for before, after in ((old.features, new.features), (old.deepstack[0], new.deepstack[0])):
            corner = before.view(*old.grid, 5)[:2, :2].reshape(4, 5)
            assert torch.allclose(after[0], corner.mean(0), atol=1e-6)
            assert torch.equal(after[1], before[1])
    assert pooled.features.counts == pooled.selection.counts == (24, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ratio_one_changes_nothing_bit_for_bit(dtype):
    given_ = features((4, 6), (3, 3), dtype=dtype)
    before = [tile.features.clone() for tile in given_.tiles]
    pooled = SpatialPool()(features=given_, ratio=1.0)
    for i, tile in enumerate(pooled.features.tiles):
        assert torch.equal(tile.features, before[i]) and tile.features.dtype == dtype
        assert pooled.selection.indices[i].tolist() == list(range(len(before[i])))
    SpatialPool()(features=given_, tokens=1)
    assert all(torch.equal(tile.features, one) for tile, one in zip(given_.tiles, before, strict=True))
