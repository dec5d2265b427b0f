"""FoPru's row strategy (paper §4.3, Algorithm 1 lines 9–11)."""

from __future__ import annotations

import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning.budget import kept_count


def row_select(
    scores: torch.Tensor, grid: tuple[int, int], ratio: float | None = None, tokens: int | None = None
) -> torch.Tensor:
    """Indices of all tokens in the rows with the highest summed score; equal rows keep the upper one.

    Args:
        scores: (N,) significance in raster order.
        grid: the true (h, w) with h · w = N; the paper's √N holds for square grids only.
        ratio: share of rows kept, max(1, ⌊h · ratio⌋).
        tokens: at most this many tokens, in whole rows: max(1, ⌊tokens / w⌋) rows; wins over ``ratio``.

    Returns:
        (rows · w,) int64 indices, best row first, left to right within a row.

    Raises:
        UserError: the grid does not hold N tokens, or the budget is missing or out of bounds.
    """
    height, width = grid
    if height * width != scores.shape[0]:
        raise UserError(
            f"a {height} × {width} grid has no room for {scores.shape[0]} scores", "pass the tile's own grid"
        )
    rows = None if tokens is None else kept_count(scores.shape[0], tokens=tokens) // width
    kept = kept_count(height, ratio, None if rows is None else max(1, rows))
    best = torch.argsort(scores.view(height, width).sum(1), descending=True, stable=True)[:kept]
    columns = torch.arange(width, device=scores.device)
    return (best[:, None] * width + columns).flatten()
