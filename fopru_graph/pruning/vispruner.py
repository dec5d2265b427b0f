"""VisPruner (arXiv 2412.01818v2): of the tokens that are not important, those are dropped that others resemble."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch.nn.functional import normalize

from fopru_graph.pruning.attention import queries_at_a_time

STEP = 8  # tokens that a round drops


def distinct(features: torch.Tensor, count: int) -> torch.Tensor:
    """The places of ``count`` tokens that are left when similar ones are dropped, a few in each round.

    Every round takes the tokens at even and at odd places of the list. Of the even ones those are dropped whose highest
    cosine to any odd one is largest, up to 8 and no more than there are too many; of equal ones the later. The others,
    in their order, and behind them the odd ones are the list of the next round. The number of rounds follows from R and
    ``count``, so nothing waits for the device. Cosines of all pairs are in memory: 4 R² bytes a tile.

    Args:
        features: (B, R, C) of B tiles, the most important token first; of any floating type, compared in float32.
        count: number of tokens to keep in each tile, at most R.

    Returns:
        (B, ``count``) int64, ascending.
    """
    tiles, length, _ = features.shape
    place = torch.arange(length, device=features.device).expand(tiles, -1)
    if count in (0, length):
        return place[:, :count]
    directions = normalize(features.float(), dim=-1)
    cosines = (directions @ directions.mT).flatten(0, 1)
    offsets = torch.arange(0, tiles * length, length, device=features.device)[:, None]
    block = queries_at_a_time(features.device, tiles * length)
    while (surplus := place.shape[1] - count) > 0:
        even, odd = place[:, ::2], place[:, 1::2]
        # Whole rows, which lie together in memory, to every token: picking the pairs out would take longer.
        blocks = (cosines.index_select(0, rows.flatten()) for rows in torch.split(odd + offsets, block, 1))
        closest = reduce(torch.maximum, (rows.view(tiles, -1, length).amax(1) for rows in blocks))
        staying = even.shape[1] - min(STEP, surplus, even.shape[1])
        unlike = closest.gather(1, even).argsort(dim=1, stable=True)[:, :staying].sort(1).values
        place = torch.cat([even.gather(1, unlike), odd], 1)
    return place.sort(1).values


def distinct_prune(
    features: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    first: Sequence[torch.Tensor],
    counts: Sequence[int],
) -> list[torch.Tensor]:
    """What each tile keeps: tokens that are kept already, and behind them the most distinct of the others.

    Args:
        features: (N, C) of each tile.
        scores: (N,) by which the others are ordered; of equal ones the lower index comes first.
        first: (K,) int64 indices of the tokens that are kept already, without repeats.
        counts: number of tokens that each tile keeps, those counted in; of more in ``first`` the first ones stay.

    Returns:
        (count,) int64 indices a tile; behind those of ``first`` by falling score.
    """
    groups: dict[tuple[int, int, int, int], list[int]] = {}
    for tile, (each, kept, count) in enumerate(zip(features, first, counts, strict=True)):
        length, width = each.shape  # tiles of a picture may differ in width, too: pooled ones are projected already
        groups.setdefault((length, width, min(len(kept), count), min(length, count)), []).append(tile)
    found: dict[int, torch.Tensor] = {}
    for (length, _, begun, count), group in groups.items():
        most = queries_at_a_time(scores[group[0]].device, (length - begun) ** 2 or 1)
        for start in range(0, len(group), most):
            tiles = group[start : start + most]
            kept = torch.stack([first[tile][:begun] for tile in tiles])
            ranked = torch.stack([scores[tile] for tile in tiles]).scatter(1, kept, -torch.inf)
            others = ranked.argsort(dim=1, descending=True, stable=True)[:, : length - begun]
            tokens = torch.stack([features[tile][other] for tile, other in zip(tiles, others, strict=True)])
            chosen = torch.cat([kept, others.gather(1, distinct(tokens, count - begun))], 1)
            found |= zip(tiles, chosen, strict=True)
    return [found[tile] for tile in range(len(scores))]
