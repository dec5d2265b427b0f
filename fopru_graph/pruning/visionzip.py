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
        count: targets, at most N − K.

    Returns:
        ``weights`` (K + count, N) float32, and ``target_indices`` (K + count,) int64: ``kept``, then the targets.
    """
    tokens, device = len(keys), keys.device
    taken = torch.zeros(tokens, dtype=torch.uint8, device=device).index_fill(0, kept, 1)
    rest = taken.argsort(stable=True)[: tokens - len(kept)]
    targets = rest[:: max(1, len(rest) // max(1, count))][:count]
    weights = torch.eye(tokens, device=device)[torch.cat([kept, targets])]
    if 0 < count < len(rest):
        others = taken.index_fill(0, targets, 1).argsort(stable=True)[: len(rest) - count]
        target = nearest(keys[others], keys[targets])[1]
        members = torch.zeros(count, tokens, device=device).index_put((target, others), torch.ones((), device=device))
        weights[len(kept) :] += members / members.sum(1, keepdim=True).clamp(min=1)
    return weights, torch.cat([kept, targets])
