"""Medians and intervals against what numpy and a slow count by hand say."""

from __future__ import annotations

import random

import pytest

from fopru_graph.results.statistics import gain, timing


def rounds(times):
    """One time a round."""
    return [[time] for time in times]


def test_median_and_ninetieth_percentile():
    found = timing([1, 2, 3, 4, 5, 6, 7, 8, 9, 20])
    assert (found.median, found.n) == (5.5, 10)
    assert found.p90 == pytest.approx(9 + 0.1 * 11)  # nine tenths of the way from the first to the last
    assert timing([4.0]).median == timing([4.0]).p90 == 4


def test_a_gain_is_the_ratio_of_medians_inside_its_interval():
    dice = random.Random(1)
    slow = [100 + dice.gauss(0, 3) for _ in range(12)]
    fast = [50 + dice.gauss(0, 3) for _ in range(12)]
    found = gain(rounds(slow), rounds(fast), ideal=2.5)
    assert found.measured == pytest.approx(sorted(slow)[5] / 2 / (sorted(fast)[5] / 2), rel=0.05)
    assert found.low < found.measured < found.high
    assert found.high - found.low < 0.5
    assert found.reached == found.measured / 2.5
    assert gain(rounds(slow), rounds(fast), 2.5) == found  # the same draws every time


def test_what_slows_a_whole_round_cancels_out():
    """Rounds are drawn, not samples: with a machine that is twice as slow every other round the ratio is still sure."""
    slow = [100, 200, 101, 202, 99, 198]
    fast = [time / 2 for time in slow]
    found = gain(rounds(slow), rounds(fast), 2)
    assert found.low == found.high == found.measured == 2
    shuffled = gain(rounds(slow), rounds(fast[i] for i in (1, 0, 3, 2, 5, 4)), 2)
    assert shuffled.high - shuffled.low > 0.5


def test_no_difference_has_an_interval_around_one():
    dice = random.Random(2)
    a, b = ([100 + dice.gauss(0, 5) for _ in range(10)] for _ in range(2))
    found = gain(rounds(a), rounds(b), 1)
    assert found.low < 1 < found.high


def test_rounds_without_a_partner_are_left_out():
    assert gain(rounds([10, 10, 1000]), rounds([5, 5]), 1).measured == 2


def test_the_times_of_a_round_are_drawn_together():
    """Two times a round are no two rounds: a whole round that is slow moves a median twice as far."""
    slow, fast = [[100, 101], [200, 201], [100, 101], [200, 201]], [[50, 50]] * 4
    drawn_apart = gain(rounds(time for times in slow for time in times), rounds([50] * 8), 1)
    assert gain(slow, fast, 1).high >= drawn_apart.high
    both = [[100, 300], [100, 300], [100, 300]]  # each round has the same median, whichever are drawn
    found = gain(both, [[50, 50]] * 3, 1)
    assert found.low == found.high == found.measured == 4
