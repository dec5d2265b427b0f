"""VisionZip against a slow, obvious implementation of the published rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.contextual_merge import ContextualMerge
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning.visionzip import contextual_map, mean_keys
from fopru_graph.values import Budget as Counts
from fopru_graph.values import Selection, TileAttention
from tests.pruning.tiles import lists, random_tiles


def cosine(a, b):
    norms = float(a.norm()) * float(b.norm())
    return float(a @ b) / norms if norms else 0.0


def contextual_by_hand(features, keys, kept, count):
    """The contextual tokens in float64, and the indices of their targets."""
    rest = [i for i in range(len(keys)) if i not in kept]
    count = min(count, len(rest))
    stride = max(1, len(rest) // max(1, count))
    targets = [rest[i * stride] for i in range(count)]
    joined = {target: [] for target in targets}
    for token in rest:
        if targets and token not in joined:
            likeness = [round(cosine(keys[token].double(), keys[target].double()), 5) for target in targets]
            joined[targets[likeness.index(max(likeness))]].append(token)
    merged = []
    for target in targets:
        merged.append(features[target].double())
        if joined[target]:
            merged[-1] = merged[-1] + features[joined[target]].double().mean(0)
    return merged, targets


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([0.05, 0.3, 0.7, 1.0]), st.sampled_from([0.0, 0.5, 0.84375, 1.0]), st.integers(0, 99))
def test_the_bricks_together_equal_the_rule_in_every_tile(ratio, share, seed):
    features, scores = random_tiles((4, 6), (5, 5), (1, 1), (2, 7), seed=seed)
    budgets = Budget()(features=features, ratio=ratio, share=share)
    dominant = RankPrune()(significance=scores, budget=budgets.part)
    merged = ContextualMerge()(features=features, selection=dominant, budget=budgets.whole)
    assert tuple(map(len, merged.selection.indices)) == budgets.whole.counts
    for i, (old, new) in enumerate(zip(features.tiles, merged.features.tiles, strict=True)):
        kept = dominant.indices[i].tolist()
        for before, after in ((old.features, new.features), (old.deepstack[0], new.deepstack[0])):
            tokens, targets = contextual_by_hand(
                before, mean_keys(old.attention), kept, budgets.whole.counts[i] - len(kept)
            )
            assert merged.selection.indices[i].tolist() == kept + targets
            untouched = [j for j in range(len(before)) if j not in targets]
            assert torch.equal(after[untouched], before[untouched])
            assert all(
                torch.allclose(after[target].double(), token, atol=1e-5)
                for target, token in zip(targets, tokens, strict=True)
            )


def test_without_contextual_tokens_it_is_the_ranking_by_cls_attention():
    features, _ = random_tiles((4, 6), (3, 3))
    scores = ClsAttention()(features=features)
    budgets = Budget()(features=features, ratio=0.4, share=1.0)
    ranked = RankPrune()(significance=scores, ratio=0.4)
    merged = ContextualMerge()(
        features=features, selection=RankPrune()(significance=scores, budget=budgets.part), budget=budgets.whole
    )
    assert lists(merged.selection.indices) == lists(ranked.indices)
    assert all(
        torch.equal(old.features, new.features) for old, new in zip(features.tiles, merged.features.tiles, strict=True)
    )


def test_all_tokens_stay_as_they_are_at_ratio_one():
    features, scores = random_tiles((4, 6), dtype=torch.bfloat16)
    budgets = Budget()(features=features, ratio=1.0, share=0.8)
    merged = ContextualMerge()(
        features=features, selection=RankPrune()(significance=scores, budget=budgets.part), budget=budgets.whole
    )
    assert sorted(merged.selection.indices[0].tolist()) == list(range(24))
    assert torch.equal(merged.features.tiles[0].features, features.tiles[0].features)


def test_targets_are_spread_over_the_dropped_tokens_and_equal_ones_join_the_first():
    keys = torch.ones(10, 3)
    weights, targets = contextual_map(keys, torch.tensor([0, 9]), 3)
    assert targets.tolist() == [1, 3, 5]
    assert torch.allclose(weights[0], torch.tensor([0, 1, 0.2, 0, 0.2, 0, 0.2, 0.2, 0.2, 0]))
    assert weights[1:].tolist() == torch.eye(10)[[3, 5]].tolist()


def test_half_precision_keys_are_averaged_and_compared_in_float32():
    generator = torch.Generator().manual_seed(0)
    keys = (1 + torch.randn(4, 25, 8, generator=generator) * 2**-7).bfloat16()
    half, full = (TileAttention(each, each, 1.0, 1) for each in (keys, keys.float()))
    assert torch.equal(mean_keys(half), mean_keys(full)) and mean_keys(half).dtype == torch.float32
    assert not torch.equal(mean_keys(half), keys[:, 1:].mean(0).float())


def test_keys_are_averaged_where_a_model_merges_patches():
    keys = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(8).view(2, 4)
    found = mean_keys(TileAttention(keys, keys, 1.0, 1, groups))
    assert torch.allclose(found, keys[:, 1:].mean(0).view(2, 4, 4).mean(1), atol=1e-6)


def test_a_selection_or_a_budget_of_other_tiles_is_refused():
    features, scores = random_tiles((2, 2))
    kept = RankPrune()(significance=scores, ratio=0.5)
    with pytest.raises(UserError, match="budget is for 2 tiles"):
        ContextualMerge()(features=features, selection=kept, budget=Counts((1, 1)))
    with pytest.raises(UserError, match="kept already"):
        ContextualMerge()(features=features, selection=Selection(kept.indices, (5,)), budget=Counts((3,)))
