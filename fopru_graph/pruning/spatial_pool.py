"""Average pooling of a tile's grid: what FoPru's ablation "without significance" keeps instead of the best tokens."""

from __future__ import annotations

import math

import torch

from fopru_graph.pruning.budget import kept_count


def pooled_grid(grid: tuple[int, int], ratio: float | None = None, tokens: int | None = None) -> tuple[int, int]:
    """The grid (h', w') with h' · w' ≤ K = `kept_count` that a grid (h, w) is pooled to, near its own shape.

    h' = ⌊√(K · h / w)⌋, at least 1 and at most K; w' = ⌊K / h'⌋, at most w. A quarter of an even grid is 2 × 2 → 1.

    Raises:
        UserError: no budget, or one out of bounds (see `kept_count`).
    """
    high, wide = grid
    most = kept_count(high * wide, ratio, tokens)
    rows = max(1, min(most, math.isqrt(high * most // wide)))
    return rows, min(wide, most // rows)


def pooling_map(grid: tuple[int, int], smaller: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of adaptive average pooling, for `mix.mixed`.

    Cell i of h' covers rows ⌊i · h / h'⌋ to ⌈(i + 1) · h / h'⌉ − 1, columns likewise; cells share lines where the sides
    do not divide. The mean takes the place of the cell's middle patch (of four the upper left).

    Args:
        grid: (h, w).
        smaller: (h', w'), at most (h, w).

    Returns:
        ``weights`` (h' · w', h · w) float32, whose rows sum to one, and ``places`` (h' · w',) int64, ascending.
    """
    (rows, row_places), (columns, column_places) = (_cells(*pair) for pair in zip(grid, smaller, strict=True))
    return torch.kron(rows, columns), (row_places[:, None] * grid[1] + column_places).flatten()


def _cells(length: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one side: each line's share (cells, length) in each cell, and the cells' middle lines (cells,)."""
    number = torch.arange(cells)
    begin, end = number * length // cells, -(-(number + 1) * length // cells)
    line = torch.arange(length)
    inside = (line >= begin[:, None]) & (line < end[:, None])
    return inside / (end - begin)[:, None], (begin + end - 1) // 2
