"""The row strategy over rows that run through all tiles of a picture, for models that cut it into a grid of tiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.pruning.budget import kept_count


def stitched_row_select(
    scores: Sequence[torch.Tensor],
    grid: tuple[int, int],
    bands: Sequence[int],
    ratio: float | None = None,
    tokens: int | None = None,
) -> list[torch.Tensor]:
    """Indices kept in each tile when the rows with the highest summed score are kept from edge to edge of the picture.

    Args:
        scores: one (N,) a tile, all of the same ``grid`` (h, w) with h · w = N.
        grid: rows and columns of a tile.
        bands: the row of tiles, from the top, that each tile stands in.
        ratio: share of the picture's rows kept, max(1, ⌊bands · h · ratio⌋).
        tokens: at most this many tokens of the picture, in whole rows, at least one row; wins over ``ratio``.

    Returns:
        One (k · w,) int64 a tile, rows from top to bottom; none in tiles of a band without kept rows.

    Raises:
        UserError: the budget is missing or out of bounds.
    """
    height, width = grid
    count = max(bands) + 1
    sums = torch.zeros(count, height, dtype=torch.float32, device=scores[0].device)
    for band, score in zip(bands, scores, strict=True):
        sums[band] += score.view(height, width).sum(1)
    across = width * (len(bands) // count)  # tokens of a row from edge to edge
    rows = None if tokens is None else max(1, kept_count(count * height * across, tokens=tokens) // across)
    kept = torch.zeros(count * height, dtype=torch.bool, device=sums.device)
    best = sums.flatten().argsort(descending=True, stable=True)[: kept_count(count * height, ratio, rows)]
    kept[best] = True
    columns = torch.arange(width, device=sums.device)
    lines = [row.nonzero()[:, 0] for row in kept.view(count, height)]
    return [(lines[band][:, None] * width + columns).flatten() for band in bands]


def stitched_groups(
    images: Sequence[Sequence[int]], places: Sequence[tuple[int, int] | None]
) -> list[tuple[list[int], list[int]]]:
    """Tiles that share rows, and the band each stands in: the grid of each picture; overviews and frames alone.

    Args:
        images: the tiles of each image.
        places: each tile's (row, column) in its picture's grid, or None.
    """
    groups = []
    for tiles in images:
        placed = [tile for tile in tiles if places[tile] is not None]
        groups += [([tile], [0]) for tile in tiles if places[tile] is None]
        if placed:
            groups.append((placed, [place[0] for tile in placed if (place := places[tile]) is not None]))
    return groups
