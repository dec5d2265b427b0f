"""FoPru's rank strategy (paper §4.3, Algorithm 1 line 7)."""

from __future__ import annotations

import torch

from fopru_graph.pruning.budget import kept_count


def rank_select(scores: torch.Tensor, ratio: float | None = None, tokens: int | None = None) -> torch.Tensor:
    """Indices of the highest scores, most significant first; equal scores keep the lower index.

    Args:
        scores: (N,) significance.
        ratio: share kept, K = max(1, ⌊N · ratio⌋).
        tokens: K itself; wins over ``ratio``.

    Returns:
        (K,) int64 indices in descending order of score.

    Raises:
        UserError: no budget, or one out of bounds (see `kept_count`).
    """
    kept = kept_count(scores.shape[0], ratio, tokens)
    return torch.argsort(scores, descending=True, stable=True)[:kept]
