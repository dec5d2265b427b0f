"""HoloV (arXiv 2510.02912): attention and in-chunk diversity say how many tokens each chunk of the sequence keeps."""

from __future__ import annotations

import torch

from fopru_graph.pruning.groups import best_of_groups, part_of, share_out
from fopru_graph.pruning.similarity import cosine_blocks

_NO_VARIANCE = 1e-9  # below it differences between cosines are rounding, which must not be blown up to a share


def holov_select(
    features: torch.Tensor, scores: torch.Tensor, kept: int, chunks: int | None = 16, weight: float = 0.09
) -> torch.Tensor:
    """Cut a tile's sequence into chunks, share the budget out over them, and keep each chunk's highest scores.

    A chunk's share is its mean of t = a + weight · v, where v is the variance of a token's cosines to the others of its
    chunk, rescaled to the mean of a over the tile. The published factor of 1000 on a changes no share, as v is rescaled
    after it.

    Args:
        features: (N, C) of any floating type.
        scores: (N,), the a: none negative, on any device.
        kept: K, at most N.
        chunks: how many, of as equal lengths as can be; at most N. None for ⌊1024 · N / (576 · K)⌋.
        weight: of the second term.

    Returns:
        (K,) int64: chunk by chunk, in descending order of score; of equal scores the lower index comes first.
    """
    count, device = len(scores), features.device
    chunks = max(1, min(count, 1024 * count // (576 * max(1, kept)) if chunks is None else chunks))
    scores, number = scores.to(device, torch.float32), torch.arange(chunks, device=device)[:, None]
    places = -(-number * count // chunks) + torch.arange(-(-count // chunks), device=device)
    inside, places = places * chunks // count == number, places.clamp(max=count - 1)  # (chunks, longest chunk)
    variance = _cosine_variance(features[places], inside)
    scale = weight * scores.mean() / (variance.sum() / count).clamp(min=_NO_VARIANCE)
    means = ((scores[places] + scale * variance) * inside).sum(1) / inside.sum(1)
    quotas = share_out(kept, means, inside.sum(1))
    return best_of_groups(scores, part_of(count, chunks, device), quotas, kept)


def _cosine_variance(features: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Variance of each token's cosines to the other tokens of its chunk, 0 of fewer than two.

    Args:
        features: (G, m, C), chunks of at most m tokens.
        inside: (G, m) bool, which of them there are.

    Returns:
        (G, m) float32, 0 for tokens that are not there.
    """
    variances = []
    itself = torch.eye(inside.shape[1], dtype=torch.bool, device=inside.device)
    for block, cosines in cosine_blocks(features, features):
        others = inside[:, None] & inside[:, block, None] & ~itself[block]
        number = others.sum(-1, keepdim=True).clamp(min=1)
        centred = (cosines - (cosines * others).sum(-1, keepdim=True) / number) * others
        variances.append((centred.square() / number).sum(-1))
    return torch.cat(variances, 1)
