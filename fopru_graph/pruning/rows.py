"""FoPru's row strategy (paper §4.3, Algorithm 1 lines 9–11): whole rows of the grid are kept.

Whole rows seldom spend a budget to the last token. What a tile leaves over is spent in the next tile of its image, so
that a ratio means the same for every strategy; an image of one tile is pruned exactly as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain

import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning.select import SLACK, Over, kept_count, reorder, selection_of, split_parts, tile_groups
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
    return _best_rows([scores], [grid], [[0]], ratio, tokens)[0][0]


def row_prune(significance: Significance, ratio: float | None, tokens: int | None, over: Over = "tile") -> Selection:
    """Spend a budget on all tiles by `row_select`. ``ratio`` is a share of a group's tokens, ``tokens`` their number.

    What whole rows leave over of a ratio is added to the budget of the image's next group. Rows of different lengths
    are compared by their mean scores. Over ``stitched`` the kept rows come from top to bottom, otherwise best row
    first; a tile may keep none.

    Raises:
        UserError: a grid does not hold its tile's tokens, or the budget is missing or out of bounds.
    """
    scores, images = significance.scores, significance.images or range(len(significance.scores))
    kept: dict[int, torch.Tensor] = {}
    left_over: dict[int, float] = {}
    for bands in tile_groups(len(scores), over, significance.images, significance.tile_positions):
        image = images[bands[0][0]]
        rows, left = _best_rows(scores, significance.grids, bands, ratio, tokens, left_over.get(image, 0.0))
        kept |= rows
        left_over[image] = left if tokens is None else 0.0
    if over == "stitched":
        kept = {tile: reorder(indices) for tile, indices in kept.items()}
    return selection_of([kept[tile] for tile in range(len(scores))], significance)


def _best_rows(
    scores: Sequence[torch.Tensor],
    grids: Sequence[tuple[int, int]],
    bands: Sequence[Sequence[int]],
    ratio: float | None,
    tokens: int | None,
    left_over: float = 0.0,
) -> tuple[dict[int, torch.Tensor], float]:
    """Indices kept of each tile in one group of bands, best row first; a row runs through all tiles of its band.

    ``left_over`` tokens are added to the budget; also returns what this group leaves over.
    """
    for tile in chain.from_iterable(bands):
        (height, width), count = grids[tile], len(scores[tile])
        if height * width != count:
            raise UserError(f"a {height} × {width} grid has no room for {count} scores", "pass the tile's own grid")
    heights = [grids[band[0]][0] for band in bands]
    widths = [sum(grids[tile][1] for tile in band) for band in bands]  # tokens of a row from edge to edge
    available = sum(height * width for height, width in zip(heights, widths, strict=True))
    whole = kept_count(available, ratio, tokens)
    budget = whole if tokens is not None or ratio is None else available * ratio + left_over
    sums = [
        torch.stack([scores[tile].view(grids[tile]).sum(1, dtype=torch.float32) for tile in band]).sum(0) / width
        for band, width in zip(bands, widths, strict=True)
    ]
    best = torch.argsort(torch.cat(sums), descending=True, stable=True)
    lengths = [width for height, width in zip(heights, widths, strict=True) for _ in range(height)]
    count, spent = _rows_within(best, lengths, budget)
    rows = split_parts(best[:count], heights)
    kept = {}
    for band, band_rows in zip(bands, rows, strict=True):
        for tile in band:
            width = grids[tile][1]
            kept[tile] = (band_rows[:, None] * width + torch.arange(width, device=best.device)).flatten()
    return kept, budget - spent


def _rows_within(best: torch.Tensor, lengths: Sequence[int], budget: float) -> tuple[int, int]:
    """How many of the best rows fit into a budget of tokens, at least one; and the tokens that they hold.

    ``best`` (rows,) are indices into ``lengths``. The host reads them only if rows differ in length.
    """
    if len(set(lengths)) == 1:
        count = min(len(lengths), max(1, math.floor(budget / lengths[0] + SLACK)))
        return count, count * lengths[0]
    held = list(accumulate(lengths[row] for row in best.tolist()))
    count = max(1, sum(tokens <= budget + SLACK for tokens in held))
    return count, held[count - 1]
