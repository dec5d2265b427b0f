"""From scores of patches to scores of the visual tokens that a model merges them into."""

from __future__ import annotations

import torch


def pool_units(scores: torch.Tensor, units: torch.Tensor | None) -> torch.Tensor:
    """Mean score of each unit's patches.

    Args:
        scores: (M,) of the patches.
        units: (N, m) int64, the patches of each visual token; None where every patch is one.

    Returns:
        (N,) scores of the visual tokens.
    """
    return scores if units is None else scores[units].mean(-1)
