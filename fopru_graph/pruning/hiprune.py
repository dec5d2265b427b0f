"""HiPrune (arXiv 2508.00553): what a middle encoder layer attends to is kept first, with its surroundings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError

SIDE_BY_SIDE = 5  # tokens of an anchor with its left, right, upper and lower neighbour


def anchors(
    scores: Sequence[torch.Tensor], grids: Sequence[tuple[int, int]], budgets: Sequence[int]
) -> list[torch.Tensor]:
    """The best tokens of each tile together with their left, right, upper and lower neighbours on its grid.

    A budget of b tokens has b / 5 best ones, rounded, half a one up. Neighbours beyond the grid's edges are left out,
    and those that anchors share count once, so that there are at most 5 tokens for each best one. How many there are
    the host must know: it waits for the device once, for all tiles together.

    Args:
        scores: (N,) of each tile; of equal ones the lower index is better.
        grids: each tile's (h, w) with h · w = N.
        budgets: each tile's b.

    Returns:
        (K,) int64 indices a tile, ascending; none for a budget below 2.5.

    Raises:
        UserError: a grid does not hold its tile's tokens.
    """
    marks = [_marked(*tile) for tile in zip(scores, grids, budgets, strict=True)]
    counts = torch.stack([marked.sum() for marked in marks]).tolist()
    orders = (marked.byte().argsort(descending=True, stable=True) for marked in marks)
    return [order[:count] for order, count in zip(orders, counts, strict=True)]


def _marked(scores: torch.Tensor, grid: tuple[int, int], budget: int) -> torch.Tensor:
    """(N,) bool: the anchors of one tile and their neighbours."""
    height, width = grid
    if height * width != len(scores):
        raise UserError(f"a {height} × {width} grid has no room for {len(scores)} scores", "pass the tile's own grid")
    best = scores.argsort(descending=True, stable=True)[: math.floor(budget / SIDE_BY_SIDE + 0.5)]
    row, column = best // width, best % width
    rows = [row, row, row, (row - 1).clamp(min=0), (row + 1).clamp(max=height - 1)]
    columns = [column, (column - 1).clamp(min=0), (column + 1).clamp(max=width - 1), column, column]
    marked = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    return marked.index_fill(0, torch.cat(rows) * width + torch.cat(columns), True)
