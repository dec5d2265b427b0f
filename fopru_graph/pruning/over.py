"""One budget over several tiles of an image at once, for both of FoPru's strategies; the paper prunes tile by tile.

Scores of different tiles are compared as they are. They are means over a tile's own attention map, so those of a tile
with fewer tokens are larger; the tiles of one image have the same number in all families, but for odd edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning.rank import rank_select
from fopru_graph.pruning.row import row_select

Over = Literal["tile", "image"]


def groups_of(tiles: int, images: Sequence[int], over: Over) -> list[list[int]]:
    """The tiles that share a budget: each alone, or all of an image.

    Args:
        tiles: T, their number.
        images: each tile's image, (T,); may be empty where ``over`` is ``tile``.
        over: ``tile`` or ``image``.

    Raises:
        UserError: ``over`` is unknown, or ``image`` although nobody said which image each tile is of.
    """
    if over not in ("tile", "image"):
        raise UserError(f"over {over!r} is unknown", "choose tile or image")
    if over == "tile":
        return [[tile] for tile in range(tiles)]
    if len(images) != tiles:
        raise UserError(
            f"the scores do not say which image each of {tiles} tiles is of",
            "choose over: tile, or let the scorer set Significance.images",
        )
    return [[tile for tile in range(tiles) if images[tile] == image] for image in dict.fromkeys(images)]


def rank_select_over(
    scores: Sequence[torch.Tensor], ratio: float | None = None, tokens: int | None = None
) -> list[torch.Tensor]:
    """Indices of the highest scores of all tiles together; equal scores keep the earlier tile, then the lower index.

    Args:
        scores: one (N,) significance a tile.
        ratio: share kept, K = max(1, ⌊ΣN · ratio⌋).
        tokens: K itself; wins over ``ratio``.

    Returns:
        One int64 tensor of indices a tile, most significant first; some may be empty, together they are K.

    Raises:
        UserError: no budget, or one out of bounds (see `kept_count`).
    """
    return _by_tile(rank_select(torch.cat(list(scores)), ratio, tokens), scores)


def row_select_over(
    scores: Sequence[torch.Tensor],
    grids: Sequence[tuple[int, int]],
    ratio: float | None = None,
    tokens: int | None = None,
) -> list[torch.Tensor]:
    """Indices of all tokens in the rows with the highest summed score, rows of all tiles together, as of one tall tile.

    Args:
        scores: one (N,) significance a tile, in raster order.
        grids: their (h, w), with the same w.
        ratio: share of rows kept, max(1, ⌊Σh · ratio⌋).
        tokens: at most this many tokens, in whole rows: max(1, ⌊tokens / w⌋) rows; wins over ``ratio``.

    Returns:
        One int64 tensor of indices a tile, best row first, left to right within a row; some may be empty.

    Raises:
        UserError: rows are of different lengths, a grid does not hold its tile's tokens, or the budget is missing or
            out of bounds.
    """
    widths = sorted({width for _, width in grids})
    if len(widths) > 1:
        raise UserError(f"rows of {widths} tokens cannot share a budget of rows", "choose over: tile, or RankPrune")
    for one, (height, width) in zip(scores, grids, strict=True):
        if height * width != len(one):
            raise UserError(f"a {height} × {width} grid has no room for {len(one)} scores", "pass the tile's own grid")
    tall = (sum(height for height, _ in grids), widths[0])
    return _by_tile(row_select(torch.cat(list(scores)), tall, ratio, tokens), scores)


def _by_tile(chosen: torch.Tensor, scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Indices into tiles laid end to end as indices into each, in the order that they came in."""
    if len(scores) == 1:  # all of them, and the host need not wait to learn how many
        return [chosen]
    first, split = 0, []
    for one in scores:
        split.append(chosen[(chosen >= first) & (chosen < first + len(one))] - first)
        first += len(one)
    return split
