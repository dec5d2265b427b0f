"""Budgets shared out over groups, and the best of each group, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.pruning.groups import best_of_groups, share_out, window_select


def shared_by_hand(total, weights, rooms):
    """Floored shares, then all that is left to the largest weight that has room, one token at a time."""
    whole = sum(weights)
    shares = [weight / whole if whole else 1 / len(weights) for weight in weights]
    counts = [min(room, math.floor(total * share + 1e-3)) for share, room in zip(shares, rooms, strict=True)]
    while sum(counts) < total:
        free = [group for group in range(len(rooms)) if counts[group] < rooms[group]]
        counts[max(free, key=lambda group: (shares[group], -group))] += 1
    return counts


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=20), st.data())
def test_a_budget_is_shared_out_to_the_last_token(groups, data):
    weights, rooms = map(list, zip(*groups, strict=True))
    total = data.draw(st.integers(0, sum(rooms)))
    found = share_out(total, torch.tensor(weights).float(), torch.tensor(rooms))
    assert found.tolist() == shared_by_hand(total, weights, rooms)
    assert sum(found) == total


def test_a_share_that_is_whole_is_not_rounded_down():
    weights = torch.full((49,), 1 / 49)  # sums to a little less or more than one
    assert share_out(49 * 7, weights, torch.full((49,), 100)).tolist() == [7] * 49


def test_what_a_full_group_cannot_take_goes_to_the_next_best():
    assert share_out(10, torch.tensor([1.0, 6, 3]), torch.tensor([9, 4, 4])).tolist() == [2, 4, 4]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=60), st.data())
def test_each_group_keeps_its_best(tokens, data):
    scores, groups = map(list, zip(*tokens, strict=True))
    members = [[i for i, group in enumerate(groups) if group == each] for each in range(6)]
    quotas = [data.draw(st.integers(0, len(each))) for each in members]
    expected = [
        i
        for each, quota in zip(members, quotas, strict=True)
        for i in sorted(each, key=lambda i: (-scores[i], i))[:quota]
    ]
    found = best_of_groups(torch.tensor(scores).float(), torch.tensor(groups), torch.tensor(quotas), sum(quotas))
    assert found.tolist() == expected


def windows_by_hand(scores, grid, side, tokens):
    (height, width), kept = grid, []
    down, across = min(side, height), min(side, width)
    for row in range(down):
        for column in range(across):
            window = [
                y * width + x
                for y in range(height)
                for x in range(width)
                if y * down // height == row and x * across // width == column
            ]
            kept += sorted(window, key=lambda i: (-scores[i], i))[: tokens // (down * across)]
    return kept


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 5), st.data())
def test_windows_of_any_grid_equal_a_loop(height, width, side, data):
    tokens = data.draw(st.integers(0, height * width))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    scores = torch.randint(0, 5, (height * width,), generator=generator).float()  # ties
    found = window_select(scores, (height, width), side, tokens)
    assert found.tolist() == windows_by_hand(scores.tolist(), (height, width), side, tokens)


@pytest.mark.parametrize("kept", [31, 32, 96, 288])
def test_the_published_windows_are_six_by_six(kept):
    scores = torch.rand(576, generator=torch.Generator().manual_seed(kept))
    found = window_select(scores, (24, 24), 4, kept)
    counts = torch.bincount(found // 24 // 6 * 4 + found % 24 // 6, minlength=16)
    assert counts.tolist() == [kept // 16] * 16


def test_all_tokens_of_every_window_are_all_tokens():
    assert window_select(torch.rand(35), (5, 7), 1, 35).sort().values.tolist() == list(range(35))
    assert window_select(torch.rand(1), (1, 1), 4, 1).tolist() == [0]
