"""VisPruner's diverse half (arXiv 2412.01818 v2): of similar tokens some are dropped, round by round."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

WHOLE = 4096  # tokens whose cosines are computed once and kept (64 MiB); of more, each round computes its own
SHARE = 72  # a round drops one token of so many, as the published 8 of 576, and at least 8


def drop_similar(features: torch.Tensor, order: torch.Tensor, count: int) -> torch.Tensor:
    """Drop tokens that resemble others until ``count`` are left.

    A round splits the tokens that are left into those at even and those at odd places, and drops the even ones that
    have the highest cosine to any odd one. The even ones that stay come first in the next round. How many a round
    drops follows from the numbers alone, so nothing waits for the device.

    Args:
        features: (N, C) that similarity is measured on.
        order: (M,) int64 tokens to choose from, the most significant first.
        count: tokens to leave, at most M.

    Returns:
        (count,) int64.
    """
    if not count:
        return order[:0]
    directions = normalize(features.float(), dim=1)
    cosines = directions @ directions.T if len(features) <= WHOLE else None
    at_once = max(8, len(features) // SHARE)
    while len(order) > count:
        even, odd = order[0::2], order[1::2]
        similar = directions[even] @ directions[odd].T if cosines is None else cosines[even[:, None], odd]
        stay = len(even) - min(at_once, len(order) - count, len(even))
        unlike = similar.amax(1).argsort(stable=True)[:stay].sort().values
        order = torch.cat([even[unlike], odd])
    return order
