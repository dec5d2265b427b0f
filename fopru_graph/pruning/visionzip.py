"""VisionZip's contextual tokens (arXiv 2412.04467): evenly spaced tokens that take in what resembles them most."""

from __future__ import annotations

import torch

from fopru_graph.pruning.similarity import nearest


def contextual_map(keys: torch.Tensor, kept: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights by which tokens are merged, for `linear_merge.linear_merge`.

    Of the tokens that are not kept, in raster order, every ⌊rest / count⌋-th is a target, ``count`` in all. Every
    other one goes to the target with the most similar key, and a target becomes the sum of itself and their mean.

    Args:
        keys: (N, C) that similarity is measured on.
        kept: (K,) int64 tokens that stay as they are.
        count: targets; all that are not kept where they are fewer.

    Returns:
        ``weights`` (count, N) float32, and the targets (count,) int64, ascending.
    """
    tokens, device = len(keys), keys.device
    taken = torch.zeros(tokens, dtype=torch.uint8, device=device).index_fill(0, kept, 1)
    rest = taken.argsort(stable=True)[: tokens - len(kept)]
    count = min(count, len(rest))
    targets = rest[:: max(1, len(rest) // max(1, count))][:count]
    weights = torch.zeros(count, tokens, device=device)
    if 0 < count < len(rest):
        others = taken.index_fill(0, targets, 1).argsort(stable=True)[: len(rest) - count]
        target = nearest(keys[others], keys[targets])[1]
        weights = weights.index_put((target, others), torch.ones((), device=device))
        weights /= weights.sum(1, keepdim=True).clamp(min=1)
    return weights.scatter(1, targets[:, None], 1.0), targets
