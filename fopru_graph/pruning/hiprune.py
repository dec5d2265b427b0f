"""HiPrune's anchors (arXiv 2508.00553): tokens that a middle encoder layer attends to most, and their neighbours."""

from __future__ import annotations

import torch


def promote_anchors(
    scores: torch.Tensor, anchor_scores: torch.Tensor, grid: tuple[int, int], anchors: int
) -> torch.Tensor:
    """Raise the best tokens of a middle layer and their neighbours above all others.

    Neighbours are left, right, up and down in the grid. The published code lets left and right run over the ends of
    rows; here what lies outside the grid is the anchor itself.

    Args:
        scores: (N,) float32 of a deep layer, in raster order.
        anchor_scores: (N,) of the middle layer.
        grid: (h, w) with h · w = N.
        anchors: how many tokens of the middle layer; with neighbours up to five times as many are raised.

    Returns:
        (N,) float32: ``scores``, and for raised tokens more than the highest of them; in both parts the order stays.
    """
    height, width = grid
    best = anchor_scores.argsort(descending=True, stable=True)[:anchors]
    row, column = best // width, best % width
    rows = torch.stack([row, row, row, row - 1, row + 1]).clamp(0, height - 1)
    columns = torch.stack([column, column - 1, column + 1, column, column]).clamp(0, width - 1)
    raised = torch.zeros_like(scores).index_fill(0, (rows * width + columns).flatten(), 1.0)
    return scores + raised * (1 + scores.max() - scores.min())
