"""From scores of patches to scores of the visual tokens that a model merges them into."""

from __future__ import annotations

import torch


def pool_units(scores: torch.Tensor, units: torch.Tensor | None, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean score of each unit's patches.

    Args:
        scores: (M,) of the patches.
        units: (N, m) int64, the patches of each visual token; None where every patch is one.
        weights: (N, m) shares of the patches, rows that sum to one; None for equal ones.

    Returns:
        (N,) scores of the visual tokens.
    """
    if units is None:
        return scores
    return scores[units].mean(-1) if weights is None else (scores[units] * weights).sum(-1)
