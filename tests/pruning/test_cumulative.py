"""Cumulative scores against adding up by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.pruning.cumulative import POINTS, cumulative_select, mass_curve, tokens_for
from fopru_graph.values import Significance

counts = st.lists(st.integers(0, 9), min_size=1, max_size=40)


def select(scores, mass):
    """The selection from a single tile."""
    return cumulative_select([scores], mass)[0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 100))
def test_mass_equals_adding_up_by_hand(values, percent):
    """Integer scores, so that sums which hit the share exactly do occur."""
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    wanted, kept, held = Fraction(percent * sum(values), 100), [], 0
    for i in ranked:
        kept.append(i)
        held += values[i]
        if held >= wanted:
            break
    assert select(torch.tensor(values).float(), percent / 100).tolist() == kept


def test_no_smaller_set_holds_the_mass():
    scores = torch.rand(200, generator=torch.Generator().manual_seed(0)) ** 4
    for mass in (0.1, 0.5, 0.8, 0.99, 1.0):
        kept = select(scores, mass)
        assert scores[kept].double().sum() >= mass * scores.double().sum() * (1 - 1e-8)
        assert scores[kept[:-1]].double().sum() < mass * scores.double().sum()


def test_extremes_of_mass():
    assert select(torch.zeros(5), 0.8).tolist() == [0]
    assert select(torch.tensor([2.0]), 1.0).tolist() == [0]
    assert select(torch.tensor([0.0, 3, 0, 1]), 1.0).tolist() == [1, 3]  # what holds nothing is not needed
    assert select(torch.tensor([1.0, 1, 1, 1]).half(), 0.75).tolist() == [0, 1, 2]
    assert select(torch.tensor([7.0] + [1.0] * 93), 0.07).tolist() == [0]  # 0.07 · 100 is 7.000…1 in binary
    for mass in (0.0, -0.1, 1.01):
        with pytest.raises(UserError, match="mass"):
            select(torch.ones(3), mass)
    with pytest.raises(UserError, match="negative"):
        cumulative_select([torch.ones(2), torch.tensor([1.0, -1.0])], 0.5)


def test_the_number_follows_each_tile():
    peaked, flat = torch.tensor([8.0, 1, 1, 0]), torch.ones(4)
    found = MassPrune()(significance=Significance((peaked, flat), ((2, 2),) * 2, ("x",) * 2), mass=0.8)
    assert [one.tolist() for one in found.indices] == [[0], [0, 1, 2, 3]] and found.counts == (4, 4)


def held_by_hand(values, point):
    """What the best ``point`` of the tokens hold, in exact fractions; the token that is cut counts in part."""
    left, held = point * len(values), Fraction(0)
    for value in sorted(values, reverse=True):
        taken = min(Fraction(1), left)
        held, left = held + taken * value, left - taken
    return held / sum(values)


@settings(max_examples=100, deadline=None)
@given(counts)
def test_the_curve_equals_adding_up_by_hand(values):
    values = values if sum(values) else [1] * len(values)
    curve = mass_curve(torch.tensor(values, dtype=torch.float32))
    expected = [float(held_by_hand(values, Fraction(step, 20))) for step in range(21)]
    assert tuple(step / 20 for step in range(21)) == POINTS
    assert curve == pytest.approx(expected, abs=1e-9)
    assert curve[0] == 0 and curve[-1] == 1


@settings(max_examples=100, deadline=None)
@given(counts, st.integers(1, 10))
def test_the_smallest_share_equals_trying_one_token_more_by_hand(values, tenths):
    values = values if sum(values) else [1] * len(values)
    best = sorted(values, reverse=True)
    needed = next(k for k in range(1, len(best) + 1) if 10 * sum(best[:k]) >= tenths * sum(best))
    assert tokens_for(torch.tensor(values, dtype=torch.float32), tenths / 10) == needed / len(values)


def test_even_and_peaked_attention():
    even, peaked = torch.full((20,), 0.05), torch.tensor([0.0] * 19 + [3.0])
    assert mass_curve(even) == pytest.approx(POINTS)
    assert tokens_for(even) == 0.8
    assert mass_curve(peaked)[1:] == pytest.approx([1.0] * 20)
    assert tokens_for(peaked) == 0.05
    assert tokens_for(torch.zeros(10)) == 0.8  # nothing says that one token counts more than another
    assert mass_curve(torch.tensor([2.0, 1.0, 1.0]), [0.5]) == pytest.approx([0.625])
    assert tokens_for(even.to(torch.bfloat16), 1.0) == 1.0


@pytest.mark.parametrize("scores", [[], [1.0, -0.1], [1.0, float("nan")], [1.0, float("inf")], [[1.0], [2.0]]])
def test_what_is_no_attention_is_refused(scores):
    for of in (mass_curve, tokens_for):
        with pytest.raises(UserError, match="not negative"):
            of(torch.tensor(scores))


def test_impossible_shares_are_refused():
    for mass in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(UserError, match="mass"):
            tokens_for(torch.ones(3), mass)
    with pytest.raises(UserError, match="point"):
        mass_curve(torch.ones(3), [0.5, 1.5])
