"""HiRED's budgets on families that cut pictures into an overview and tiles, and on those that do not."""

from __future__ import annotations

import pytest

from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.tile_budget import TileBudget
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import Significance
from tests import tiny
from tests.lvlm.families.test_tile_positions import CUT
from tests.lvlm.zoo import ZOO


def scored(name, *sizes):
    family = ZOO[name].build("sdpa")
    features = family.encode([tiny.image(i, *size) for i, size in enumerate(sizes)])
    return family, features, ClsAttention()(features=features, without_cls="received")


@pytest.mark.parametrize("name", CUT)
def test_budgets_of_cut_pictures_are_spent_to_the_last_token(name):
    family, features, scores = scored(name, (448, 300), (300, 448))
    budget = TileBudget()(significance=scores, ratio=0.4)
    selection = RankPrune()(significance=scores, budget=budget)
    assert tuple(map(len, selection.indices)) == budget.counts
    for image in range(2):
        tiles = [i for i, tile in enumerate(features.tiles) if tile.image == image]
        total = kept_count(sum(features.counts[tile] for tile in tiles), 0.4)
        (whole,) = (tile for tile in tiles if features.tiles[tile].tile_position is None)
        assert sum(budget.counts[tile] for tile in tiles) == total
        assert budget.counts[whole] == min(total // 2, features.counts[whole])
        assert len(tiles) > 2
    assert sum(family.project(features, selection).counts) == sum(budget.counts)


@pytest.mark.parametrize("name", CUT)
def test_a_tile_is_favoured_if_the_overview_is_looked_at_where_it_stands(name):
    """Whatever the order of tiles: the overview first or last."""
    _, features, scores = scored(name, (448, 448))
    (whole,) = (i for i, tile in enumerate(features.tiles) if tile.tile_position is None)
    corner = max(tile.tile_position for tile in features.tiles if tile.tile_position)
    looked_at = scores.scores[whole].new_zeros(features.tiles[whole].grid)
    looked_at[-1, -1] = 1.0
    given = [looked_at.flatten() if i == whole else tile for i, tile in enumerate(scores.scores)]
    overview = 1 - 1 / looked_at.numel()  # so that one token counts
    significance = Significance.of(features, given, "x")
    counts = TileBudget()(significance=significance, tokens=looked_at.numel(), overview=overview).counts
    assert [tile.tile_position for tile, n in zip(features.tiles, counts, strict=True) if n] in (
        [None, corner],
        [corner, None],
    )


@pytest.mark.parametrize("name", sorted(set(ZOO) - set(CUT)))
def test_an_uncut_picture_has_the_budget_itself(name):
    _, features, scores = scored(name, (224, 224), (224, 112))
    budget = TileBudget()(significance=scores, ratio=0.4)
    assert budget.counts == tuple(kept_count(count, 0.4) for count in features.counts)
