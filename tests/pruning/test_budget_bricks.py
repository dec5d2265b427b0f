"""Budgets that several rules share; HiPrune, VisPruner and VisionZip against slow loops written from their rules."""

from __future__ import annotations

import math

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.nodes.budget import Budget as BudgetNode
from fopru_graph.nodes.contextual_merge import ContextualMerge
from fopru_graph.nodes.drop_similar import DropSimilar
from fopru_graph.nodes.promote_anchors import PromoteAnchors
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning import vispruner
from fopru_graph.pruning.hiprune import promote_anchors
from fopru_graph.pruning.select import rank_prune, tile_budgets
from fopru_graph.pruning.visionzip import contextual_map
from fopru_graph.pruning.vispruner import drop_similar, drop_similar_prune
from fopru_graph.values import Budget, Selection, Significance, Tile, TileAttention, VisionFeatures

GRIDS = ((3, 4), (1, 1), (4, 5))


def scored(seed=0, integers=False):
    random = torch.Generator().manual_seed(seed)
    sizes = [high * wide for high, wide in GRIDS]
    drawn = [torch.randint(0, 3, (n,), generator=random) for n in sizes] if integers else None
    scores = drawn or [torch.rand(n, generator=random) for n in sizes]
    return Significance(tuple(tile.float() for tile in scores), GRIDS, ("cls",) * 3, (0, 0, 1))


def encoded(dtype=torch.float32, seed=1):
    """Tiles with duplicated tokens and a zero vector."""
    random = torch.Generator().manual_seed(seed)
    tiles = []
    for image, (high, wide) in zip((0, 0, 1), GRIDS, strict=True):
        features = torch.randn(high * wide, 6, generator=random)
        if len(features) > 4:
            features[3], features[4] = features[1], 0.0
        key = features.view(1, -1, 2, 3).transpose(0, 2)[..., 0, :].repeat(1, 1, 1)
        attention = TileAttention(key.contiguous(), key.contiguous(), 1.0, 0)
        tiles.append(Tile(features.to(dtype), (high, wide), image, attention))
    return VisionFeatures(tuple(tiles), ())


def cosine(a, b):
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else 0.0


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "tokens", "share"), [(0.5, None, 0.5), (1.0, None, 0.1), (0.3, 7, 0.25), (1, 1, 1)])
def test_a_budget_is_that_of_rank_and_its_part_is_rounded(ratio, tokens, share):
    whole, part = tile_budgets((12, 1, 20), ratio, tokens, share)
    kept = RankPrune()(significance=scored(), ratio=ratio, tokens=tokens).indices
    assert whole.counts == tuple(map(len, kept))
    assert part.counts == tuple(math.floor(share * count + 0.5) for count in whole.counts)
    budgets = BudgetNode()(features=encoded(), ratio=ratio, tokens=tokens, share=share)
    assert (budgets.whole, budgets.part) == (whole, part)
    wired = RankPrune()(significance=scored(), ratio=0.01, budget=whole).indices
    assert all(map(torch.equal, wired, kept))


@pytest.mark.parametrize("over", ["tile", "image"])
@pytest.mark.parametrize("integers", [False, True])
def test_tokens_kept_already_come_first_and_count(over, integers):
    significance = scored(3, integers)
    start = Selection((torch.tensor([5, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([7])), (12, 1, 20))
    chosen = rank_prune(significance, 0.4, None, over, start=start)
    groups = [[0], [1], [2]] if over == "tile" else [[0, 1], [2]]
    for group in groups:
        available = sum(len(significance.scores[t]) for t in group)
        count = max(1, math.floor(available * 0.4 + 1e-6))
        first = [(t, i) for t in group for i in start.indices[t].tolist()]
        rest = [(t, i) for t in group for i in range(len(significance.scores[t])) if (t, i) not in first]
        rest.sort(key=lambda pair: (-float(significance.scores[pair[0]][pair[1]]), pair))
        expected = first + rest[: count - len(first)]
        for tile in group:
            assert chosen.indices[tile].tolist() == [i for t, i in expected if t == tile]


def test_budgets_and_beginnings_of_other_tiles_are_refused():
    with pytest.raises(UserError, match="for 2 tiles, the scores are of 3"):
        rank_prune(scored(), None, None, budget=Budget((3, 4)))
    other = Selection((torch.tensor([0]),) * 3, (9, 1, 20))
    with pytest.raises(UserError, match="wire both|of other|kept already") as refused:
        rank_prune(scored(), 0.5, None, start=other)
    assert "same VisionEncode" in refused.value.hint


# -- HiPrune ----------------------------------------------------------------------------------------------------------


def hiprune_by_hand(deep, middle, grid, count, anchors):
    height, width = grid
    best = sorted(range(len(middle)), key=lambda i: (-middle[i], i))[:anchors]
    raised = set()
    for token in best:
        row, column = divmod(token, width)
        for down, right in ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)):
            if 0 <= row + down < height and 0 <= column + right < width:
                raised.add((row + down) * width + column + right)
    order = sorted(range(len(deep)), key=lambda i: (i not in raised, -deep[i], i))
    return sorted(order[:count])


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize(("ratio", "share"), [(0.5, 0.9), (0.9, 0.3), (1.0, 1.0), (0.01, 0.1)])
def test_hiprune_is_its_slow_reference(ratio, share, integers):
    deep, middle = scored(1, integers), scored(2, integers)
    budgets = BudgetNode()(features=encoded(), ratio=ratio, share=share)
    promoted = PromoteAnchors()(significance=deep, anchors=middle, budget=budgets.part)
    chosen = RankPrune()(significance=promoted, budget=budgets.whole).indices
    for tile, grid in enumerate(GRIDS):
        lists = deep.scores[tile].tolist(), middle.scores[tile].tolist()
        count, anchors = budgets.whole.counts[tile], round(budgets.part.counts[tile] / 5)
        assert sorted(chosen[tile].tolist()) == hiprune_by_hand(*lists, grid, count, anchors)


def test_hiprune_without_anchors_is_foprus_rank():
    deep, middle = scored(1), scored(2)
    budgets = BudgetNode()(features=encoded(), ratio=0.4, share=0.0)
    promoted = PromoteAnchors()(significance=deep, anchors=middle, budget=budgets.part)
    chosen = RankPrune()(significance=promoted, budget=budgets.whole).indices
    assert all(map(torch.equal, chosen, RankPrune()(significance=deep, ratio=0.4).indices))


def test_neighbours_stop_at_the_ends_of_rows():
    middle = torch.zeros(12).index_fill(0, torch.tensor([4]), 1.0)  # the first of the second of three rows
    raised = promote_anchors(torch.zeros(12), middle, (3, 4), 1)
    assert (raised > 0).nonzero()[:, 0].tolist() == [0, 4, 5, 8]


# -- VisPruner --------------------------------------------------------------------------------------------------------


def vispruner_by_hand(features, order, count, at_once=8):
    order = list(order)
    while len(order) > count and count:
        even, odd = order[0::2], order[1::2]
        highest = [max(cosine(features[e], features[o]) for o in odd) for e in even]
        dropped = min(at_once, len(order) - count, len(even))
        ranked = sorted(range(len(even)), key=lambda i: (highest[i], i))[: len(even) - dropped]
        order = [even[i] for i in sorted(ranked)] + odd
    return order if count else []


@pytest.mark.parametrize("whole", [4096, 0])
@pytest.mark.parametrize(("tokens", "count"), [(33, 9), (20, 1), (7, 7), (2, 1), (1, 1), (5, 0), (40, 31)])
def test_dropping_similar_tokens_is_its_slow_reference(tokens, count, whole, monkeypatch):
    monkeypatch.setattr(vispruner, "WHOLE", whole)
    features = torch.randn(tokens, 5, generator=torch.Generator().manual_seed(tokens)).bfloat16()
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(0))
    several = torch.stack([features[order], features[order.flip(0)]])  # in one loop as each in its own
    for left, places in zip(drop_similar(several, count), (order, order.flip(0)), strict=True):
        assert places[left].tolist() == vispruner_by_hand(features.float(), places.tolist(), count)


def test_of_duplicates_and_zero_vectors_as_many_are_left_as_asked_for():
    features = torch.ones(30, 4)
    features[10:20] = 0
    (left,) = drop_similar(features[None], 5).tolist()
    assert len(set(left)) == 5


def test_large_tiles_lose_one_of_72_tokens_a_round(monkeypatch):
    """So that the number of rounds does not grow with the tile."""
    rounds = []
    monkeypatch.setattr(vispruner, "drop_similar", lambda f, n, at_once: rounds.append(at_once) or drop_similar(f, n))
    for count in (16, 576, 647, 648, 2880):
        significance = Significance((torch.rand(count),), ((1, count),), ("x",))
        drop_similar_prune([torch.randn(count, 2)], significance, 0.99, None, None, None)
    assert rounds == [8, 8, 8, 9, 40]


def test_of_two_equal_tokens_the_less_significant_goes():
    features = torch.eye(6)
    features[1], features[5] = features[0], features[4]
    assert sorted(drop_similar(features[None], 5)[0].tolist()) == [0, 1, 2, 3, 5]


def test_tiles_of_one_size_go_through_one_loop_if_they_are_as_wide_and_memory_holds_them(monkeypatch):
    random = torch.Generator().manual_seed(0)
    features = [torch.randn(20, width, generator=random) for width in (6, 6, 6, 9)]
    significance = Significance(tuple(torch.rand(4, 20, generator=random)), ((4, 5),) * 4, ("x",) * 4)
    loops = []
    monkeypatch.setattr(vispruner, "drop_similar", lambda f, *n: loops.append(tuple(f.shape)) or drop_similar(f, *n))
    together = drop_similar_prune(features, significance, 0.3, None, None, None).indices
    assert loops == [(3, 20, 6), (1, 20, 9)]
    monkeypatch.setattr(vispruner, "WHOLE", 20)
    apart = drop_similar_prune(features, significance, 0.3, None, None, None).indices
    assert loops[2:] == [(1, 20, 6)] * 3 + [(1, 20, 9)]
    assert all(map(torch.equal, together, apart))
    with pytest.raises(UserError, match="different tokens"):
        drop_similar_prune(features[:3], significance, 0.3, None, None, None)


def test_scores_that_are_no_numbers_are_told_of_those_that_began_too():
    for finite in (True, False):
        start = Selection((torch.tensor([0]),) * 3, (12, 1, 20), torch.tensor(finite))
        chosen = rank_prune(scored(), 0.5, None, start=start)
        assert chosen.scores_finite is not None and bool(chosen.scores_finite) == finite


def test_vispruner_fills_up_what_is_kept_already():
    significance, features = scored(4), encoded(torch.bfloat16)
    budgets = BudgetNode()(features=features, ratio=0.5, share=0.5)
    important = RankPrune()(significance=significance, budget=budgets.part)
    chosen = DropSimilar()(features=features, significance=significance, budget=budgets.whole, start=important)
    for tile, kept in enumerate(chosen.indices):
        first = important.indices[tile].tolist()
        order = [i for i in significance.scores[tile].argsort(descending=True).tolist() if i not in first]
        missing = budgets.whole.counts[tile] - len(first)
        assert kept.tolist() == first + vispruner_by_hand(features.tiles[tile].features.float(), order, missing)
    everything = BudgetNode()(features=features, ratio=1.0, share=1.0)
    ranked = RankPrune()(significance=significance, budget=everything.part)
    whole = DropSimilar()(features=features, significance=significance, budget=everything.whole, start=ranked)
    assert all(map(torch.equal, whole.indices, ranked.indices))  # important alone: the ranking


# -- VisionZip --------------------------------------------------------------------------------------------------------


def visionzip_by_hand(features, keys, kept, count):
    rest = [i for i in range(len(keys)) if i not in kept]
    targets = rest[:: max(1, len(rest) // max(1, count))][:count]
    members: dict[int, list[int]] = {target: [] for target in targets}
    for token in rest:
        if targets and token not in members:
            members[max(targets, key=lambda t: (cosine(keys[token], keys[t]), -targets.index(t)))].append(token)
    merged = {t: features[t] + (features[group].mean(0) if group else 0) for t, group in members.items()}
    return kept + targets, torch.stack([merged.get(i, features[i]) for i in kept + targets])


@pytest.mark.parametrize(("ratio", "share"), [(0.5, 0.5), (0.3, 0.9), (1.0, 0.5), (0.01, 0.0), (0.4, 0.0)])
def test_contextual_tokens_are_their_slow_reference(ratio, share):
    significance, features = scored(5), encoded()
    budgets = BudgetNode()(features=features, ratio=ratio, share=share)
    dominant = RankPrune()(significance=significance, budget=budgets.part)
    merged = ContextualMerge()(features=features, selection=dominant, budget=budgets.whole)
    for tile, before in enumerate(features.tiles):
        keys = before.attention.key.mean(0)
        kept = dominant.indices[tile].tolist()
        indices, expected = visionzip_by_hand(before.features, keys, kept, budgets.whole.counts[tile] - len(kept))
        assert merged.selection.indices[tile].tolist() == indices
        assert torch.allclose(merged.features.tiles[tile].features[indices], expected, atol=1e-5)
    if ratio == 1:
        assert all(
            torch.equal(a.features, b.features) for a, b in zip(merged.features.tiles, features.tiles, strict=True)
        )


def test_visionzip_without_contextual_tokens_is_the_ranking():
    keys = torch.randn(9, 3)
    weights, indices = contextual_map(keys, torch.tensor([4, 2]), 0)
    assert weights.shape == (0, 9) and not len(indices)
    significance, features = scored(5), encoded()
    budgets = BudgetNode()(features=features, ratio=0.5, share=1.0)
    ranked = RankPrune()(significance=significance, budget=budgets.part)
    merged = ContextualMerge()(features=features, selection=ranked, budget=budgets.whole)
    assert all(map(torch.equal, merged.selection.indices, RankPrune()(significance=significance, ratio=0.5).indices))
    assert all(torch.equal(a.features, b.features) for a, b in zip(merged.features.tiles, features.tiles, strict=True))
