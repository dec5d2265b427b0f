"""Stitched rows against rows counted by hand on the whole picture."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.pruning.row import row_select
from fopru_graph.pruning.stitch import stitched_groups, stitched_row_select


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 1.0), st.integers())
def test_rows_are_those_of_the_whole_picture(down, across, height, width, ratio, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    picture = torch.randint(0, 4, (down * height, across * width), generator=generator).float()  # few values: ties
    tiles = [
        picture[r * height : (r + 1) * height, c * width : (c + 1) * width].flatten()
        for r in range(down)
        for c in range(across)
    ]
    bands = [r for r in range(down) for _ in range(across)]
    found = stitched_row_select(tiles, (height, width), bands, ratio)
    sums = picture.sum(1).tolist()
    ranked = sorted(range(len(sums)), key=lambda row: (-sums[row], row))
    kept = sorted(ranked[: max(1, math.floor(len(sums) * ratio + 1e-6))])
    for index, (band, indices) in enumerate(zip(bands, found, strict=True)):
        own = [row - band * height for row in kept if band * height <= row < (band + 1) * height]
        assert indices.tolist() == [row * width + column for row in own for column in range(width)], index


def test_one_tile_is_the_plain_row_strategy():
    scores = torch.rand(12, generator=torch.Generator().manual_seed(0))
    (found,) = stitched_row_select([scores], (4, 3), [0], 0.5)
    assert found.tolist() == sorted(row_select(scores, (4, 3), 0.5).tolist())


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (8, 2), (11, 2), (100, 4)])
def test_a_number_of_tokens_is_spent_in_whole_rows(tokens, rows):
    tiles = [torch.arange(4.0) + 10 * band for band in (0, 0, 1, 1)]
    found = stitched_row_select(tiles, (2, 2), [0, 0, 1, 1], tokens=tokens)
    assert sum(map(len, found)) == rows * 4


def test_overviews_and_frames_stand_alone():
    places = (None, (0, 0), (0, 1), (1, 0), (1, 1), None, None)
    groups = stitched_groups([[0, 1, 2, 3, 4], [5], [6]], places)
    assert groups == [([0], [0]), ([1, 2, 3, 4], [0, 0, 1, 1]), ([5], [0]), ([6], [0])]
