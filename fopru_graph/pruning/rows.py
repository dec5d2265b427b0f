"""FoPru's row strategy (paper §4.3, Algorithm 1 lines 9–11): whole rows of the grid are kept.

Whole rows seldom spend a budget to the last token. What a tile leaves over is spent in the next tile of its image, so
that a ratio means the same for every strategy; an image of one tile is pruned exactly as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from fopru_graph.pruning.select import SLACK, Over, kept_count, on_grid, reorder, selection_of, split_parts, tile_groups
from fopru_graph.values import Selection, Significance


def row_select(
    scores: torch.Tensor, grid: tuple[int, int], ratio: float | None = None, tokens: int | None = None
) -> torch.Tensor:
    """Indices of all tokens in the grid rows of one tile with the highest summed score (Algorithm 1 lines 9–11).

    Args:
        scores: (N,) significance in raster order.
        grid: the true (h, w) with h · w = N; the paper's √N holds for square grids only.
        ratio: share of rows kept, max(1, ⌊h · ratio⌋).
        tokens: at most this many tokens, in whole rows: max(1, ⌊tokens / w⌋) rows; wins over ``ratio``.

    Returns:
        (rows · w,) int64 indices, best row first (of equal rows the upper one), left to right within a row.

    Raises:
        UserError: the grid does not hold N tokens, or the budget is missing or out of bounds.
    """
    return row_prune(Significance((scores,), (grid,), ("",)), ratio, tokens).indices[0]


def row_prune(significance: Significance, ratio: float | None, tokens: int | None, over: Over = "tile") -> Selection:
    """Spend a budget on all tiles by `row_select`. ``ratio`` is a share of a group's tokens, ``tokens`` their number.

    What whole rows leave over of a ratio is added to the budget of the image's next group. Rows of different lengths
    are compared by their mean scores. Over ``stitched`` the kept rows come from top to bottom, otherwise best row
    first; a tile may keep none.

    Raises:
        UserError: a grid does not hold its tile's tokens, or the budget is missing or out of bounds.
    """
    tiles = list(map(on_grid, significance.scores, significance.grids))
    images = significance.images or range(len(tiles))
    kept: dict[int, torch.Tensor] = {}
    left_over = dict.fromkeys(images, 0.0)
    for bands in tile_groups(len(tiles), over, significance.images, significance.tile_positions):
        image = images[bands[0][0]]
        rows = [torch.cat([tiles[tile] for tile in band], 1).float() for band in bands]  # (h, W) from edge to edge
        best = torch.cat([band.mean(1) for band in rows]).argsort(descending=True, stable=True)
        lengths = [band.shape[1] for band in rows for _ in range(len(band))]
        whole = kept_count(sum(lengths), ratio, tokens)
        budget = whole if tokens is not None or ratio is None else sum(lengths) * ratio + left_over[image]
        count, spent = _rows_within(best, lengths, budget)
        left_over[image] = budget - spent
        for band, chosen in zip(bands, split_parts(best[:count], list(map(len, rows))), strict=True):
            kept |= {tile: _tokens_of(chosen, tiles[tile].shape[1]) for tile in band}
    if over == "stitched":
        kept = {tile: reorder(indices) for tile, indices in kept.items()}
    return selection_of([kept[tile] for tile in range(len(tiles))], significance)


def _tokens_of(rows: torch.Tensor, width: int) -> torch.Tensor:
    """(R · w,) int64: all tokens of the rows (R,) of a grid, row by row."""
    return (rows[:, None] * width + torch.arange(width, device=rows.device)).flatten()


def _rows_within(best: torch.Tensor, lengths: Sequence[int], budget: float) -> tuple[int, int]:
    """How many of the best rows fit into a budget of tokens, at least one; and the tokens that they hold.

    ``best`` (rows,) are indices into ``lengths``. The host reads them only if rows differ in length.
    """
    order = best.tolist() if len(set(lengths)) > 1 else range(len(lengths))
    held = list(accumulate(lengths[row] for row in order))
    count = max(1, sum(tokens <= budget + SLACK for tokens in held))
    return count, held[count - 1]
