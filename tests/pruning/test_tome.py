"""ToMe against a loop over lists of tokens."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.pruning.linear_merge import linear_merge
from fopru_graph.pruning.select import kept_count
from fopru_graph.pruning.tome import bipartite_merge, merges_of_rounds, tile_maps
from fopru_graph.values import TileAttention


def cosine(a, b):
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else 0.0


def by_hand(keys, kept, rounds):
    """[(index, members), …] of one tile, merged one pair after the other."""
    groups = [(i, [i]) for i in range(len(keys))]
    vectors = list(keys.double())
    share = -(-(len(keys) - kept) // rounds)
    while len(groups) > kept:
        first, second = range(0, len(groups), 2), range(1, len(groups), 2)
        match = {a: max(second, key=lambda b: (cosine(vectors[a], vectors[b]), -b)) for a in first}
        ranked = sorted(first, key=lambda a: (-cosine(vectors[a], vectors[match[a]]), a))
        merged = ranked[: min(share, len(groups) // 2, len(groups) - kept)]
        new_groups, new_vectors = [], []
        for i, (index, members) in enumerate(groups):
            if i in merged:
                continue
            sources = [a for a in merged if match[a] == i]
            parts = [i, *sources]
            sizes = [len(groups[p][1]) for p in parts]
            new_groups.append((index, sorted(members + [m for a in sources for m in groups[a][1]])))
            new_vectors.append(sum(vectors[p] * n for p, n in zip(parts, sizes, strict=True)) / sum(sizes))
        groups, vectors = new_groups, new_vectors
    return groups


def check(keys, kept, rounds):
    weights, targets = bipartite_merge(keys, kept, rounds)
    for tile in range(len(keys)):
        groups = by_hand(keys[tile], kept, rounds)
        assert targets[tile].tolist() == [index for index, _ in groups]
        assert [row.nonzero()[:, 0].tolist() for row in weights[tile]] == [members for _, members in groups]
        assert torch.allclose(weights[tile].sum(1), torch.ones(kept))
        assert all(len(row[row > 0].unique()) == 1 for row in weights[tile])


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 1), (7, 1), (24, 24), (25, 12), (30, 7), (40, 25)])
def test_it_is_its_rule(count, kept):
    for rounds in (1, 3, 24):
        check(torch.randn(2, count, 6, generator=torch.Generator().manual_seed(rounds)), kept, rounds)


def test_duplicates_and_zeros_go_by_index():
    keys = torch.zeros(1, 12, 3)
    check(keys, 5, 2)  # all alike
    keys[:, :4, 0] = keys[:, 4:8, 1] = 1.0
    check(keys, 4, 4)


def test_rounds_are_known_beforehand_and_never_merge_more_than_half():
    assert merges_of_rounds(576, 144, 24) == [18] * 24
    assert merges_of_rounds(576, 576, 24) == []
    assert merges_of_rounds(10, 1, 2) == [5, 2, 1, 1]
    assert sum(merges_of_rounds(2880, 1, 24)) == 2879


def attention(count, seed, prefix=0, **given):
    key = torch.randn(3, prefix + count, 4, generator=torch.Generator().manual_seed(seed))
    return TileAttention(key, key, 0.5, prefix, **given)


def test_tiles_of_other_sizes_are_each_merged_as_alone_by_the_mean_key_of_patches():
    groups, shares = torch.arange(36).view(9, 4), torch.softmax(torch.randn(9, 4), 1)
    tiles = [
        attention(12, 0, 1),
        attention(9, 1),
        attention(12, 2),
        attention(36, 3, patch_groups=groups, weights=shares),
    ]
    keys = [tile.key[:, tile.prefix :].mean(0) for tile in tiles]
    keys[3] = (keys[3][groups] * shares[..., None]).sum(1)
    for (weights, targets), tile_keys in zip(tile_maps(tiles, 0.4, None, 3), keys, strict=True):
        expected = by_hand(tile_keys, kept_count(len(tile_keys), 0.4), 3)
        assert targets.tolist() == [index for index, _ in expected]
        assert [row.nonzero()[:, 0].tolist() for row in weights] == [members for _, members in expected]


def test_everything_kept_changes_no_feature():
    features = torch.randn(8, 5)
    weights, targets = tile_maps([attention(8, 0)], 1.0, None, 24)[0]
    assert torch.equal(linear_merge(features, weights, targets), features)


def test_half_precision_is_compared_in_float32():
    tile = attention(30, 4)
    low = TileAttention(tile.query, tile.key.bfloat16(), 0.5, 0)
    same = TileAttention(tile.query, low.key.float(), 0.5, 0)
    for ours, theirs in zip(tile_maps([low], 0.3, None, 5)[0], tile_maps([same], 0.3, None, 5)[0], strict=True):
        assert torch.equal(ours, theirs)
