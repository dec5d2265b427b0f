"""From scores, or keys, of patches to those of the visual tokens that a model merges them into."""

from __future__ import annotations

import torch


def pool_scores(scores: torch.Tensor, units: torch.Tensor | None, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean score of each unit's patches.

    Args:
        scores: (M,) of the patches, or (M, C) where each has several.
        units: (N, m) int64, the patches of each visual token; None where every patch is one.
        weights: (N, m) shares of the patches, rows that sum to one; None for equal ones.

    Returns:
        (N,) or (N, C) scores of the visual tokens.
    """
    if units is None:
        return scores
    if weights is None:
        return scores[units].mean(1)
    return (scores[units] * weights.view(*weights.shape, *[1] * (scores.dim() - 1))).sum(1)
