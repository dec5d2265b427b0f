"""Budgets of overviews and tiles (HiRED) against a slow, obvious implementation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.pruning.hired import hired_budgets
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import Significance
from tests.pruning.test_groups import shared_by_hand


def cut(overview, rows, columns, first=True, image=0):
    """The scores of an overview (h, w) and of tiles with so many tokens in each row and column of tiles."""
    height, width = overview.shape
    sizes = [(high, wide) for high in rows for wide in columns]
    tiles = [torch.zeros(high * wide) for high, wide in sizes]
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    scores, grids, positions = [*tiles, overview.flatten()], [*sizes, (height, width)], [*places, None]
    if first:
        scores, grids, positions = ([each[-1], *each[:-1]] for each in (scores, grids, positions))
    return tuple(scores), tuple(grids), ("cls",) * len(scores), (image,) * len(scores), tuple(positions)


def together(*pictures):
    return Significance(*(sum(parts, ()) for parts in zip(*pictures, strict=True)))


def budgets_by_hand(overview, rows, columns, ratio, share):
    """Of the overview, then of the tiles row by row."""
    height, width = overview.shape
    rooms = [high * wide for high in rows for wide in columns]
    total = kept_count(height * width + sum(rooms), ratio)
    whole = max(min(int(total * share + 1e-6), height * width), total - sum(rooms))
    top = int((1 - share) * height * width + 1e-6)
    ranked = sorted(overview.flatten().tolist(), reverse=True)
    limit = ranked[max(0, top - 1)]
    above, equal = sum(score > limit for score in ranked), sum(score == limit for score in ranked)
    hits = [0] * len(rooms)
    for y in range(height):
        for x in range(width):
            down, across = (y + 0.5) / height * sum(rows), (x + 0.5) / width * sum(columns)
            row = sum(down >= sum(rows[: i + 1]) for i in range(len(rows)))
            column = sum(across >= sum(columns[: i + 1]) for i in range(len(columns)))
            score = overview[y, x].item()
            part = equal if score > limit else top - above if score == limit else 0
            hits[row * len(columns) + column] += part
    return [whole, *shared_by_hand(total - whole, hits, rooms)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([2, 3, 6]), min_size=1, max_size=3),
    st.lists(st.sampled_from([1, 4, 6]), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]),
    st.booleans(),
    st.data(),
)
def test_budgets_equal_the_rule_in_loops(rows, columns, share, ratio, first, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    overview = torch.randint(0, 8, (6, 6), generator=generator).float()  # ties
    significance = together(cut(overview, rows, columns, first))
    found = list(hired_budgets(significance, ratio, overview=share))
    ordered = found if first else [found[-1], *found[:-1]]
    assert ordered == budgets_by_hand(overview, rows, columns, ratio, share)
    assert sum(found) == kept_count(sum(map(len, significance.scores)), ratio)
    assert all(count <= len(scores) for count, scores in zip(found, significance.scores, strict=True))


def test_uniform_attention_shares_equally():
    significance = together(cut(torch.ones(24, 24), (24, 24), (24, 24)))
    assert hired_budgets(significance, 0.2) == (288, 72, 72, 72, 72)
    assert hired_budgets(significance, 1.0) == (576,) * 5


def test_a_tile_gets_what_is_seen_where_it_stands_and_not_a_band_of_rows():
    """All attention in the upper right quadrant; the published code would call it the upper two bands."""
    overview = torch.zeros(24, 24)
    overview[:12, 12:] = 1 + torch.rand(12, 12)
    significance = together(cut(overview, (24, 24), (24, 24)))
    top = 0.75  # of 576 tokens 144 count: those of the quadrant
    first, *tiles = hired_budgets(significance, 0.2, overview=top)
    assert (first, tiles) == (432, [0, 144, 0, 0])


def test_padding_takes_no_part_of_the_picture():
    """Rows of the lower tiles that show padding are gone: the upper tiles show more than the upper half."""
    overview = torch.zeros(24, 24)
    overview[:16] = 1.0
    overview[:, 12:] = 0.0
    significance = together(cut(overview, (24, 12), (24, 24)))
    assert hired_budgets(significance, tokens=400, ratio=None, overview=2 / 3)[1:] == (134, 0, 0, 0)


def test_a_full_tile_hands_on_and_the_last_resort_is_the_overview():
    overview = torch.zeros(4, 4)
    overview[0, 0] = 1.0
    significance = together(cut(overview, (2, 2), (2, 2)))
    assert hired_budgets(significance, 0.5, overview=0.9375) == (15, 1, 0, 0, 0)
    assert hired_budgets(significance, None, tokens=10, overview=0.0) == (0, 4, 2, 2, 2)
    assert hired_budgets(significance, None, tokens=30, overview=0.0) == (14, 4, 4, 4, 4)


def test_each_picture_has_its_own_budget_and_an_uncut_one_the_budget_itself():
    one, other = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(1)).unbind()
    uncut = ((torch.rand(10),), ((2, 5),), ("cls",), (1,), (None,))
    parts = cut(one, (6, 6), (6,)), uncut, cut(other, (6,), (6, 3), first=False, image=2)
    alone = [hired_budgets(together(part), 0.3) for part in parts]
    assert hired_budgets(together(*parts), 0.3) == sum(alone, ())
    assert alone[1] == (3,)
    tiles_alone = tuple(part[1:] for part in cut(one, (6, 6), (6,)))
    assert hired_budgets(together(tiles_alone), 0.3) == (10, 10)
    frames = ((torch.rand(10),) * 3, ((2, 5),) * 3, ("cls",) * 3, (0,) * 3, (None,) * 3)
    assert hired_budgets(together(frames), 0.3) == (3, 3, 3)


def test_scores_that_do_not_say_where_tiles_stand_are_refused():
    with pytest.raises(UserError, match="where each of"):
        hired_budgets(Significance((torch.ones(4),), ((2, 2),), ("x",), (0,)), 0.5)
    with pytest.raises(UserError, match="which image"):
        hired_budgets(Significance((torch.ones(4),), ((2, 2),), ("x",)), 0.5)
