"""Average pooling of a tile's grid, FoPru's ablation "without significance": cells of the grid replace its tokens."""

from __future__ import annotations

import math

import torch

from fopru_graph.pruning.select import kept_count


def pooled_grid(grid: tuple[int, int], ratio: float | None = None, tokens: int | None = None) -> tuple[int, int]:
    """The grid (h', w') with h' · w' ≤ K = `kept_count` that a grid (h, w) is pooled to, near its own shape.

    w' = ⌊K / ⌊√(K · h / w)⌋⌋, at most w, and then h' = ⌊K / w'⌋, at most h: rows fill what columns leave over of the
    budget. Example: a quarter of (24, 24) is (12, 12).

    Raises:
        UserError: the budget is missing or out of bounds (see `kept_count`).
    """
    height, width = grid
    most = kept_count(height * width, ratio, tokens)
    columns = min(width, most // max(1, min(most, math.isqrt(height * most // width))))
    return min(height, most // columns), columns


def pooling_map(grid: tuple[int, int], smaller: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of adaptive average pooling, for `linear_merge.linear_merge`.

    Cell i of h' covers the rows ⌊i · h / h'⌋ to ⌈(i + 1) · h / h'⌉ − 1, and columns likewise; where h' does not divide
    h, neighbouring cells share rows. The mean replaces the cell's middle token (of four the upper left).

    Args:
        grid: (h, w).
        smaller: (h', w'), at most (h, w).

    Returns:
        ``weights`` (h' · w', h · w) float32, which sum to one for each cell, and ``target_indices`` (h' · w',) int64,
        ascending.
    """
    (down, middle_rows), (across, middle_columns) = map(_cells, grid, smaller)
    return torch.kron(down, across), (middle_rows[:, None] * grid[1] + middle_columns).flatten()


def _cells(length: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one axis into cells: (cells, length) share of each row (or column) in each cell, (cells,) middle of each."""
    number = torch.arange(cells)
    begin, end = number * length // cells, -(-(number + 1) * length // cells)
    line = torch.arange(length)
    inside = (line >= begin[:, None]) & (line < end[:, None])
    return inside / (end - begin)[:, None], (begin + end - 1) // 2
