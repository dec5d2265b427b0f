"""PruMerge and PruMerge+ against slow, obvious implementations of the published method."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.add_uniform import AddUniform
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.outlier_prune import OutlierPrune
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning.attention import visual_keys
from fopru_graph.pruning.linear_merge import linear_merge
from fopru_graph.pruning.prumerge import add_uniform, merge_map, outlier_select
from fopru_graph.values import Selection, Significance, Tile, TileAttention, VisionFeatures

# Few distinct values: many ties.
tied_scores = st.lists(st.integers(0, 9), min_size=1, max_size=60)


def quantile(values, share):
    """Linear interpolation between the two values beside the place ``share`` · (N − 1)."""
    ranked, place = sorted(values), share * (len(values) - 1)
    low, part = math.floor(place), place - math.floor(place)
    return ranked[low] + part * (ranked[min(low + 1, len(values) - 1)] - ranked[low])


@settings(max_examples=200, deadline=None)
@given(tied_scores, st.sampled_from([0.0, 0.5, 1.5, 3.0]))
def test_outliers_equal_quartiles_by_hand(values, factor):
    first, third = quantile(values, 0.25), quantile(values, 0.75)
    limit = third + factor * (third - first)
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    expected = [i for i in ranked if values[i] > limit] or ranked[:1]
    assert outlier_select(torch.tensor(values).float(), factor).tolist() == expected


def test_outliers_are_strictly_above_and_at_least_one():
    assert outlier_select(torch.full((7,), 0.25)).tolist() == [0]
    assert outlier_select(torch.tensor([3.0])).tolist() == [0]
    assert outlier_select(torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 1, 2]).half()).tolist() == [8, 7]
    assert outlier_select(torch.tensor([0.0, 1, 2, 3, 6.0])).tolist() == [4]  # Q1 = 1, Q3 = 3: 6 is the limit itself


def test_outliers_are_found_tile_by_tile():
    quiet, loud = torch.tensor([0.0] * 8 + [1.0]), torch.tensor([10.0] * 8 + [50.0])
    found = OutlierPrune()(significance=Significance((quiet, loud), ((3, 3),) * 2, ("x",) * 2))
    assert [one.tolist() for one in found.indices] == [[8], [8]] and found.counts == (9, 9)


def uniform_by_hand(kept, count):
    ratio = max(1, len(kept)) / count
    step = max(1, int(int(1 / ratio + 1e-9) / 3))
    return kept + [i for i in range(0, count - 1, step) if i not in kept]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 60, 576])
def test_uniform_positions_at_any_share_of_outliers(count):
    generator = torch.Generator().manual_seed(count)
    for share in range(0, 101):
        kept = torch.randperm(count, generator=generator)[: round(count * share / 100)]
        found = add_uniform(kept, count)
        assert found.tolist() == uniform_by_hand(kept.tolist(), count)
        assert len(set(found.tolist())) == len(found)


@pytest.mark.parametrize(
    ("outliers", "step", "grid"), [(20, 9, 64), (32, 6, 96), (36, 5, 115), (48, 4, 144), (192, 1, 575)]
)
def test_uniform_positions_are_the_published_ones(outliers, step, grid):
    kept = torch.full((outliers,), 575, dtype=torch.int64)  # the one place that is never in the grid
    found = add_uniform(kept, 576)[outliers:]
    assert found.tolist() == list(range(0, 575, step)) and len(found) == grid


def test_uniform_positions_come_after_the_outliers_in_every_tile():
    chosen = Selection((torch.tensor([7, 3]), torch.tensor([0])), (24, 24))
    found = AddUniform()(selection=chosen)
    assert [one.tolist() for one in found.indices] == [[7, 3, 0, 4, 8, 12, 16, 20], [0, 8, 16]]


def tile_of(keys):
    """A tile of tokens with the keys (N, C)."""
    return Tile(keys, (1, len(keys)), 0, TileAttention(keys[None], keys[None], 1.0, 0))


def merge_by_hand(features, keys, scores, kept, neighbours):
    """Kept tokens with what they take up, then the sum of the dropped ones: (K', D) in float64."""
    features, keys, scores = features.double(), keys.double(), scores.double()
    count, rows = len(features), []
    for i in kept:
        cosine = {j: float(keys[i] @ keys[j] / keys[i].norm() / keys[j].norm()) for j in range(count) if j != i}
        nearest = sorted(cosine, key=lambda j: (-cosine[j], j))[:neighbours]
        rows.append(
            features[i] + sum((scores[j] * features[j] for j in nearest), torch.zeros(features.shape[1]).double())
        )
    dropped = [j for j in range(count) if j not in kept]
    if dropped:
        rows.append(sum(scores[j] * features[j] for j in dropped))
    return torch.stack(rows), kept + sorted(dropped, key=lambda j: (-scores[j].item(), j))[:1]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(0, 40), st.data())
def test_merging_equals_adding_by_hand(count, neighbours, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    features, keys = torch.randn(2, count, 6, generator=generator)
    scores = torch.randint(0, 4, (count,), generator=generator) / 8  # ties among the dropped
    kept = torch.randperm(count, generator=generator)[: data.draw(st.integers(1, count))]
    weights, target_indices = merge_map(tile_of(keys), kept, scores, neighbours)
    expected, where = merge_by_hand(features, keys, scores, kept.tolist(), neighbours)
    assert target_indices.tolist() == where and len(set(where)) == len(where)
    result = linear_merge(features, weights, target_indices)
    assert torch.allclose(result[target_indices].double(), expected, atol=1e-4)
    others = [i for i in range(count) if i not in where]
    assert torch.equal(result[others], features[others]) and result.shape == features.shape


def test_equal_keys_take_the_lower_index_and_all_scores_count_in_full():
    features = torch.eye(5)
    scores = torch.tensor([0.5, 0.25, 0.5, 0.125, 1.0])
    weights, target_indices = merge_map(tile_of(torch.ones(5, 3)), torch.tensor([4, 1]), scores, 2)
    assert weights.tolist() == [[0.5, 0.25, 0, 0, 1], [0.5, 1, 0.5, 0, 0], [0.5, 0, 0.5, 0.125, 0]]
    assert target_indices.tolist() == [4, 1, 0]
    assert linear_merge(features, weights, target_indices)[4].tolist() == [0.5, 0.25, 0, 0, 1]


def test_what_is_merged_in_blocks_is_the_same(monkeypatch):
    from fopru_graph.pruning import similarity

    generator = torch.Generator().manual_seed(5)
    scores, keys = torch.rand(40, generator=generator), torch.randn(40, 8, generator=generator)
    kept = torch.randperm(40, generator=generator)[:17]
    whole = merge_map(tile_of(keys), kept, scores, 6)
    monkeypatch.setattr(similarity, "queries_at_a_time", lambda _device, _row: 2)
    blocks = merge_map(tile_of(keys), kept, scores, 6)
    assert torch.equal(whole[0], blocks[0]) and torch.equal(whole[1], blocks[1])


def test_half_precision_is_summed_in_float32():
    generator = torch.Generator().manual_seed(6)
    features, scores = torch.randn(300, 8, generator=generator).half(), torch.rand(300, generator=generator)
    keys, kept = torch.randn(300, 8, generator=generator).half(), torch.arange(20)
    weights, target_indices = merge_map(tile_of(keys), kept, scores)
    expected, _ = merge_by_hand(features, keys, scores, kept.tolist(), 32)
    result = linear_merge(features, weights, target_indices)
    assert result.dtype == torch.float16 and weights.dtype == torch.float32
    assert torch.allclose(result[target_indices].double(), expected, rtol=2e-3, atol=2e-3)


def test_without_any_dropped_token_none_is_added():
    weights, target_indices = merge_map(tile_of(torch.randn(4, 3)), torch.tensor([2, 0, 1, 3]), torch.rand(4), 0)
    assert target_indices.tolist() == [2, 0, 1, 3] and torch.equal(weights, torch.eye(4)[[2, 0, 1, 3]])
    weights, target_indices = merge_map(tile_of(torch.randn(1, 3)), torch.tensor([0]), torch.tensor([1.0]))
    assert weights.tolist() == [[1.0]] and target_indices.tolist() == [0]


def test_keys_of_all_heads_lie_side_by_side_and_are_pooled_as_the_model_merges():
    key = torch.arange(2 * 5 * 3).float().view(2, 5, 3)
    flat = visual_keys(TileAttention(key, key, 1.0, 1), "joint")
    assert flat.shape == (4, 6)
    assert flat[2].tolist() == [*key[0, 3].tolist(), *key[1, 3].tolist()]
    patch_groups, shares = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert torch.equal(
        visual_keys(TileAttention(key, key, 1.0, 1, patch_groups), "joint"),
        torch.stack([(flat[0] + flat[3]) / 2, (flat[1] + flat[2]) / 2]),
    )
    assert torch.equal(
        visual_keys(TileAttention(key, key, 1.0, 1, patch_groups, shares), "joint"),
        torch.stack([flat[0] / 4 + flat[3] * 0.75, flat[1]]),
    )


def two_tiles():
    """Tiles of different sizes with one DeepStack layer, and scores of their own."""
    tiles, scores = [], []
    for seed, count in enumerate((12, 8)):
        generator = torch.Generator().manual_seed(seed)
        features, deep, keys = torch.randn(3, count, 6, generator=generator)
        attention = TileAttention(keys[None], keys[None], 1.0, 0)
        tiles.append(Tile(features, (1, count), seed, attention, (deep,)))
        scores.append(torch.rand(count, generator=generator))
    found = Significance(tuple(scores), ((1, 12), (1, 8)), ("x",) * 2, (0, 1), (None,) * 2)
    return VisionFeatures(tuple(tiles), (), preprocess_ms=3.0), found


def test_the_node_merges_tile_by_tile_deep_features_too_and_changes_nothing_that_it_was_given():
    features, scores = two_tiles()
    before = [(tile.features.clone(), tile.deepstack[0].clone()) for tile in features.tiles]
    selection = RankPrune()(significance=scores, ratio=0.25)
    mixture = MergeDropped()(features=features, selection=selection, significance=scores, neighbours=3)
    assert mixture.selection.counts == features.counts == mixture.features.counts == (12, 8)
    for i, tile in enumerate(features.tiles):
        made = mixture.features.tiles[i]
        kept, keys = selection.indices[i].tolist(), tile.attention.key[0]
        for old, new in ((tile.features, made.features), (tile.deepstack[0], made.deepstack[0])):
            expected, where = merge_by_hand(old, keys, scores.scores[i], kept, 3)
            assert mixture.selection.indices[i].tolist() == where and len(where) == len(kept) + 1
            assert torch.allclose(new[where].double(), expected, atol=1e-5)
        assert torch.equal(tile.features, before[i][0]) and torch.equal(tile.deepstack[0], before[i][1])
    assert features.report() and not mixture.features.report()  # told once


def test_values_of_different_encodings_are_refused():
    features, scores = two_tiles()
    selection = RankPrune()(significance=scores, ratio=0.25)
    other = Selection(selection.indices, (12, 9))
    with pytest.raises(UserError, match="different tokens") as refused:
        MergeDropped()(features=features, selection=other, significance=scores)
    assert "VisionEncode" in refused.value.hint
    swapped = VisionFeatures(features.tiles[::-1], ())
    with pytest.raises(UserError, match="different tokens"):
        MergeDropped()(features=swapped, selection=selection, significance=scores)
