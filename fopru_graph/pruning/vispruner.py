"""VisPruner's diverse half (arXiv 2412.01818 v2): of similar tokens some are dropped, round by round."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from fopru_graph.pruning.similarity import nearest

WHOLE = 4096  # tokens whose cosines are computed once and kept (64 MiB); of more, each round computes its own
AT_ONCE, SHARE = 8, 72  # tokens that a round drops: 8, or one of 72 in tiles of more than the published 576


def fill_up_unlike(
    features: torch.Tensor, scores: torch.Tensor | None, first: torch.Tensor, count: int
) -> torch.Tensor:
    """The rule for `batches.choose_in_batches`: ``first``, and what `drop_similar` leaves of the others."""
    assert scores is not None
    length = features.shape[1]
    order = scores.scatter(1, first, -torch.inf).argsort(dim=1, descending=True, stable=True)
    order = order[:, : length - first.shape[1]]
    others = torch.take_along_dim(features, order[..., None], 1)
    left = drop_similar(others, count - first.shape[1], max(AT_ONCE, length // SHARE))
    return torch.cat([first, order.gather(1, left)], 1)


def drop_similar(features: torch.Tensor, count: int, at_once: int = AT_ONCE) -> torch.Tensor:
    """Drop tokens that resemble others until ``count`` are left in each tile.

    A round splits the tokens that are left into those at even and those at odd places, and drops the even ones that
    have the highest cosine to any odd one; of equal ones the later. The even ones that stay come first in the next
    round. How many a round drops follows from the numbers alone, so nothing waits for the device.

    Args:
        features: (T, M, C) of T tiles that similarity is measured on, the most significant token first.
        count: tokens to leave, at most M.
        at_once: tokens that a round drops of each tile, but no more than all even ones or than are too many.

    Returns:
        (T, count) int64 places, as the last round left them.
    """
    tiles, length, _ = features.shape
    place = torch.arange(length, device=features.device).expand(tiles, -1)
    directions = normalize(features.float(), dim=-1)
    cosines = directions @ directions.mT if count and length <= WHOLE else None
    while count and place.shape[1] > count:
        even, odd = place[:, ::2], place[:, 1::2]
        stay = even.shape[1] - min(at_once, place.shape[1] - count, even.shape[1])
        if cosines is None:
            pairs = zip(directions, even, odd, strict=True)
            highest = torch.stack([nearest(tile[rows], tile[columns])[0] for tile, rows, columns in pairs])
        else:  # whole rows, which lie together in memory: picking out the pairs takes longer
            highest = torch.stack([tile[rows].amax(0) for tile, rows in zip(cosines, odd, strict=True)]).gather(1, even)
        unlike = highest.argsort(dim=1, stable=True)[:, :stay].sort(1).values
        place = torch.cat([even.gather(1, unlike), odd], 1)
    return place[:, :count]
