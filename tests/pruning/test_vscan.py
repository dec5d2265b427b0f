"""VScan's selection and merging, composed of bricks, against its rule in loops; and what it becomes without a part."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fopru_graph.graph import Graph, MemoryCache
from fopru_graph.nodes.average_dropped import AverageDropped
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.window_prune import WindowPrune
from fopru_graph.values import Selection, Significance, Tile, TileAttention, VisionFeatures
from tests.pruning.test_groups import windows_by_hand
from tests.pruning.test_holov import cosine

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
GRIDS = ((8, 8), (5, 7), (1, 1), (3, 12))


def drawn(seed):
    """Features of tiles with duplicates and a zero vector, and tied scores of two layers."""
    generator = torch.Generator().manual_seed(seed)
    attention = TileAttention(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), 1.0, 0)
    tiles, scores = [], ([], [])
    for grid in GRIDS:
        count = grid[0] * grid[1]
        features = torch.randn(count, 5, generator=generator)
        features[count // 2] = 0
        features[count // 3] = features[-1]
        tiles.append(Tile(features, grid, 0, attention))
        for layer in scores:
            layer.append(torch.randint(0, 7, (count,), generator=generator) / 8)
    features = VisionFeatures(tuple(tiles), ())
    return features, *(Significance.of(features, layer, "x") for layer in scores)


def vscan_by_hand(features, shallow, deep, grid, kept):
    half = math.floor(kept / 2 + 0.5)
    local = windows_by_hand(shallow.tolist(), grid, 4, half)
    others = sorted(set(range(len(deep))) - set(local), key=lambda i: (-deep[i], i))
    chosen = sorted([*local, *others[: kept - len(local)]])
    vectors = features.double().tolist()
    members = {i: [i] for i in chosen}
    for i in sorted(set(range(len(deep))) - set(chosen)):
        members[max(chosen, key=lambda j: (round(cosine(vectors[i], vectors[j]), 9), -j))].append(i)
    merged = [[sum(vectors[m][c] for m in group) / len(group) for c in range(5)] for group in members.values()]
    return chosen, torch.tensor(merged)


@pytest.mark.parametrize("ratio", [0.001, 0.2, 0.34, 0.75, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_vscan_equals_its_rule_in_loops(seed, ratio):
    features, shallow, deep = drawn(seed)
    budget = Budget()(features=features, ratio=ratio)
    local = WindowPrune()(significance=shallow, budget=budget.part)
    selection = RankPrune()(significance=deep, budget=budget.whole, start=local)
    merged = AverageDropped()(features=features, selection=Reorder()(selection=selection))
    for i, tile in enumerate(features.tiles):
        kept = budget.whole.counts[i]
        chosen, tokens = vscan_by_hand(tile.features, shallow.scores[i], deep.scores[i], tile.grid, kept)
        assert merged.selection.indices[i].tolist() == chosen and len(chosen) == kept
        assert torch.allclose(merged.features.tiles[i].features[chosen], tokens, atol=1e-5)


CACHE = MemoryCache()  # one model and one encoding serve all


def kept(name, tmp_path, to="reorder", **changes):
    """The indices that a shipped pipeline hands to the projector, with other inputs."""
    graph = Graph.load(PIPELINES / f"{name}.yaml")
    for share, value in changes.items():
        graph.set(share.replace("_", "."), value)
    (found,) = [each for each in graph.run(to=to, out=tmp_path, cache=CACHE).values() if isinstance(each, Selection)]
    return [indices.tolist() for indices in found.indices]


def test_holov_with_one_chunk_is_the_attention_ranking(tmp_path):
    ranking = kept("fastervlm", tmp_path)
    assert kept("holov", tmp_path, prune_chunks=1) == ranking != kept("holov", tmp_path)


def test_vscan_without_its_windows_is_the_attention_ranking_merged(tmp_path):
    ranking = kept("fastervlm", tmp_path)
    assert kept("vscan", tmp_path, "merge", budget_ratio=0.25, budget_share=0.0) == ranking
    assert kept("vscan", tmp_path, "merge", budget_ratio=0.25) != ranking


def test_hired_on_an_uncut_picture_is_the_attention_ranking(tmp_path):
    assert kept("hired", tmp_path) == kept("fastervlm", tmp_path, prune_ratio=0.2)
