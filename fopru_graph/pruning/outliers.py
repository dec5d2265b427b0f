"""PruMerge's selection: as many visual tokens as have an outlying score (arXiv 2403.15388)."""

from __future__ import annotations

import torch


def outlier_select(scores: torch.Tensor, factor: float = 1.5) -> torch.Tensor:
    """Indices of the scores above Q3 + factor · (Q3 − Q1), most significant first; equal scores keep the lower index.

    Quartiles are interpolated linearly. They are the tile's own; the authors' code takes them over a whole batch, whose
    pictures then change each other's tokens.

    Args:
        scores: (N,) significance.
        factor: how many interquartile ranges above the third quartile a score lies out.

    Returns:
        (K,) int64 indices in descending order of score; the highest alone where none lies out.
    """
    scores = scores.float()
    first, third = torch.quantile(scores, scores.new_tensor([0.25, 0.75]))
    count = int((scores > third + factor * (third - first)).sum())
    return torch.argsort(scores, descending=True, stable=True)[: max(1, count)]
