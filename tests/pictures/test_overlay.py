"""The picture of the kept tokens says the truth, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from fopru_graph.pictures.overlay import KEPT, LEFT, caption, dim, draw_kept, heat_map

GRID = (4, 6)
CELL = 10


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 256, (GRID[0] * CELL, GRID[1] * CELL, 3), dtype=np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    chosen = np.zeros(24, dtype=bool)
    chosen[[0, 5, 7, 13, 23]] = True
    return chosen


def patch(picture: np.ndarray, index: int) -> np.ndarray:
    row, column = divmod(index, GRID[1])
    return picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL].astype(int)


def located(sheet: np.ndarray, needle: np.ndarray, inset: int = 2) -> list[tuple[int, int]]:
    """Where a patch without its rim (where lines are drawn) stands in the sheet."""
    core = needle[inset:-inset, inset:-inset]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, core.shape)[:, :, 0]
    return [tuple(at) for at in np.argwhere((windows == core).all((-1, -2, -3)))]


def test_kept_patches_are_untouched_and_dropped_ones_dark_and_grey(picture: np.ndarray, mask: np.ndarray) -> None:
    result = dim(picture, GRID, mask)
    for index in range(24):
        before, after = patch(picture, index), patch(result, index)
        if mask[index]:
            assert (after == before).all()
        else:
            assert (after < before.max(-1, keepdims=True)).all()
            assert after.mean() < 0.6 * before.mean()
            assert (after[..., 0] == after[..., 2]).all()


def test_inputs_are_not_changed(picture: np.ndarray, mask: np.ndarray) -> None:
    arrays = (picture, mask, ~mask, np.arange(24.0))
    before = [array.copy() for array in arrays]
    draw_kept(arrays[0], GRID, arrays[1], arrays[2], arrays[3], "title", 60)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))


def test_every_kept_patch_stands_in_every_panel_that_keeps_it(picture: np.ndarray, mask: np.ndarray) -> None:
    final = mask.copy()
    final[[5, 23]] = False
    sheet = np.asarray(draw_kept(picture, GRID, mask, final, None, "title", 60))
    for index in range(24):
        places = located(sheet, patch(picture, index))
        assert len(places) == 1 + mask[index] + final[index], index
        assert len({row for row, _ in places}) == 1


def test_pooled_patches_are_clear_and_each_area_is_outlined(picture: np.ndarray) -> None:
    """Of 2 × 2 areas all is clear; a line runs between areas and none through one."""
    areas = np.array([12 * (row // 2) + 2 * (column // 2) for row in range(4) for column in range(6)])
    mask = np.isin(np.arange(24), areas)
    sheet = np.asarray(draw_kept(picture, GRID, mask, None, None, "title", 60, areas=areas))
    for index in range(24):
        assert len(located(sheet, patch(picture, index))) == 2, "in the input and among what was pooled"
    (row, left) = located(sheet, patch(picture, 0))[-1]
    panel = sheet[row - 2 : row - 2 + 4 * CELL, left - 2 : left - 2 + 6 * CELL]
    yellow = (panel.astype(int) == [255, 176, 0]).all(-1)
    assert yellow[:, 2 * CELL].all() and yellow[:, 4 * CELL].all() and yellow[2 * CELL].all()
    assert yellow.sum() == 2 * 4 * CELL + 6 * CELL - 2
    final = mask & (np.arange(24) > 6)
    pruned = np.asarray(draw_kept(picture, GRID, mask, final, None, "title", 60, areas=areas))
    found = [len(located(pruned, patch(picture, index))) for index in range(24)]
    assert found == [2 + int(areas[index] > 6) for index in range(24)], "the area of a token that is left is clear"


def test_tokens_of_a_smaller_picture_are_no_share_of_the_whole(picture: np.ndarray, mask: np.ndarray) -> None:
    assert caption(KEPT, mask, " at 25 % of its pixels").endswith("5 of 24 that it has at 25 % of its pixels")
    plain, smaller = (
        np.asarray(draw_kept(picture, GRID, mask, None, None, "t", 400, resolution=share)) for share in (1.0, 0.25)
    )
    assert plain.shape != smaller.shape or (plain != smaller).any()


def test_heat_map_is_monotone_in_the_score() -> None:
    grey = np.full((GRID[0] * CELL, GRID[1] * CELL, 3), 128, np.uint8)
    scores = np.random.default_rng(1).permutation(24) / 24
    result = heat_map(grey, GRID, scores)
    brightness = [patch(result, int(index)).mean() for index in np.argsort(scores)]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[-1] > brightness[0] + 100
    assert len(set(brightness)) >= 23  # only the top percent shares a colour


def test_heat_map_of_a_long_tail_shows_more_than_the_peak() -> None:
    grey, scores = np.full((100, 100, 3), 128, np.uint8), np.linspace(0, 1, 400)
    scores[17] = 1e4
    result = heat_map(grey, (20, 20), scores)
    assert result[97, 90].mean() > result[50, 50].mean() > result[2, 2].mean()


@pytest.mark.parametrize("scores", [np.zeros(24), np.full(24, np.nan), np.r_[np.ones(23), 2.0], np.full(24, -3e38)])
def test_heat_map_of_odd_scores(picture: np.ndarray, scores: np.ndarray) -> None:
    result = heat_map(picture, GRID, scores.astype(np.float32))
    assert result.shape == picture.shape
    if scores[-1] == 2:
        assert patch(result, 23).mean() > patch(result, 22).mean() + 50


@pytest.mark.parametrize(
    ("kept", "total", "expected"),
    [
        (144, 576, "144 of 576 (25 %)"),
        (5, 576, "5 of 576 (0.868 %)"),
        (575, 576, "575 of 576 (99.8 %)"),
        (1, 1, "(100 %)"),
    ],
)
def test_caption_counts(kept: int, total: int, expected: str) -> None:
    assert caption(LEFT, np.arange(total) < kept).endswith(expected)


def test_panels_appear_only_when_they_have_something_to_say(picture: np.ndarray, mask: np.ndarray) -> None:
    def width(final: np.ndarray | None, scores: np.ndarray | None) -> int:
        return draw_kept(picture, GRID, mask, final, scores, "t", 240).width

    two = width(None, None)
    assert width(mask.copy(), None) == two
    assert width(mask & (np.arange(24) > 6), None) == width(None, np.arange(24)) > two
    assert (
        width(mask & (np.arange(24) > 6), np.arange(24)) - width(None, np.arange(24))
        == width(None, np.arange(24)) - two
    )


@pytest.mark.parametrize("panel", [1, 40, 120, 448, 900])
@pytest.mark.parametrize(
    ("size", "grid"), [((336, 336), (24, 24)), ((10, 400), (1, 40)), ((400, 10), (80, 2)), ((1, 1), (1, 1))]
)
def test_any_size_has_white_margins_and_fits(panel: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    count = grid[0] * grid[1]
    chosen, final = np.arange(count) % 2 == 0, np.arange(count) % 4 == 0
    seen = np.zeros((*size, 3), np.uint8)
    title = "a long title " * 40 + "x" * 500
    sheet = np.asarray(draw_kept(seen, grid, chosen, final, np.arange(count), title, panel))
    frame = np.concatenate(
        [sheet[:10].reshape(-1), sheet[-10:].reshape(-1), sheet[:, :10].reshape(-1), sheet[:, -10:].reshape(-1)]
    )
    assert (frame == 255).all()
    assert (sheet < 255).any()
    assert max(sheet.shape) < 6 * panel + 1200


def test_text_is_drawn(picture: np.ndarray, mask: np.ndarray) -> None:
    def inked(title: str) -> int:
        return int((np.asarray(draw_kept(picture, GRID, mask, None, None, title, 240)) < 128).all(-1).sum())

    assert inked("a title with Ünïcode, Ω and →") > inked("") + 200
    assert inked("two\nlines") > inked("")


def test_wrong_shapes_are_refused(picture: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="selected has shape"):
        draw_kept(picture, (5, 5), mask, None, None, "t")
    with pytest.raises(ValueError, match="scores has shape"):
        draw_kept(picture, GRID, mask, None, np.zeros(3), "t")
