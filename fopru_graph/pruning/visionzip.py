"""VisionZip (arXiv 2412.04467): beside the tokens that are kept, a few others stand for all that are dropped."""

from __future__ import annotations

import torch

from fopru_graph.pruning.attention import pool_scores
from fopru_graph.pruning.similarity import nearest
from fopru_graph.values import TileAttention


def contextual_map(keys: torch.Tensor, kept: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights by which dropped tokens become ``count`` contextual ones, for `linear_merge.linear_merge`.

    Targets are evenly spread over the R dropped tokens in raster order: 0, s, 2s, … with s = max(1, ⌊R / count⌋). Each
    other dropped token joins the target whose key has the highest cosine to its own; of equal ones the first. A target
    becomes itself plus the mean of those that joined it: a sum, so that its norm about doubles.

    Args:
        keys: (N, C), see `mean_keys`.
        kept: (K,) int64 indices of the tokens that are kept as they are, without repeats.
        count: number of contextual tokens; all that are dropped where they are fewer.

    Returns:
        ``weights`` (count, N) float32 and the targets' indices (count,) int64, ascending.
    """
    is_kept = torch.zeros(len(keys), dtype=torch.uint8, device=keys.device).index_fill(0, kept, 1)
    dropped = is_kept.argsort(stable=True)[: len(keys) - len(kept)]
    count = min(count, len(dropped))
    targets = dropped[:: max(1, len(dropped) // max(1, count))][:count]
    weights = torch.zeros(count, len(keys), device=keys.device)
    if count:
        weights[nearest(keys[dropped], keys[targets])[1], dropped] = 1.0
        weights.index_fill_(1, targets, 0.0)
        weights /= weights.sum(1, keepdim=True).clamp(min=1.0)
    return weights.scatter(1, targets[:, None], 1.0), targets


def mean_keys(attention: TileAttention) -> torch.Tensor:
    """Each visual token's key as the mean of all heads, (N, d) float32; means where a model merges patches."""
    keys = attention.key[:, attention.prefix :].float().mean(0)
    return pool_scores(keys, attention.patch_groups, attention.weights)
