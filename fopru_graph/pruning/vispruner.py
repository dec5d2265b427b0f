"""VisPruner's diverse half (arXiv 2412.01818 v2): of similar tokens some are dropped, round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch.nn.functional import normalize

from fopru_graph.errors import UserError
from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.pruning.select import check_budget, group_count, group_start, selection_of
from fopru_graph.pruning.similarity import nearest
from fopru_graph.values import Budget, Selection, Significance

WHOLE = 4096  # tokens whose cosines are computed once and kept (64 MiB); of more, each round computes its own
AT_ONCE, SHARE = 8, 72  # tokens that a round drops: 8, or one of 72 in tiles of more than the published 576


def drop_similar_prune(
    features: Sequence[torch.Tensor],
    significance: Significance,
    ratio: float | None,
    tokens: int | None,
    budget: Budget | None,
    start: Selection | None,
) -> Selection:
    """Fill up each tile's budget by `drop_similar`: tokens of ``start`` first, then what is left of the others.

    Args:
        features: (N, C) of each tile that similarity is measured on.
        significance: the order of the tokens before the first round.
        ratio, tokens, budget, start: as for `select.rank_prune`.

    Raises:
        UserError: as for `select.rank_prune`, or the features are of other tiles.
    """
    lengths = [len(tile) for tile in significance.scores]
    if [len(tile) for tile in features] != lengths:
        raise UserError(
            "features and significance were made from different tokens", "wire them to the same VisionEncode"
        )
    check_budget(lengths, budget, start)
    alike: dict[tuple[int, ...], list[int]] = {}  # tiles of one size, width and budget go through one loop
    firsts = []
    for tile, each in enumerate(features):
        count = group_count([tile], lengths, ratio, tokens, budget)
        firsts.append(group_start([tile], lengths, start, count).to(each.device))
        alike.setdefault((*each.shape, len(firsts[-1]), count), []).append(tile)
    kept: dict[int, torch.Tensor] = {}
    for (length, _, begun, count), group in alike.items():
        at_once = max(1, WHOLE**2 // max(1, length - begun) ** 2)
        for tiles in (group[i : i + at_once] for i in range(0, len(group), at_once)):
            first = torch.stack([firsts[tile] for tile in tiles])
            scores = torch.stack([significance.scores[tile].to(first.device) for tile in tiles])
            order = scores.scatter(1, first, -torch.inf).argsort(dim=1, descending=True, stable=True)
            order = order[:, : length - begun]
            others = torch.stack([features[tile][rest] for tile, rest in zip(tiles, order, strict=True)])
            left = order.gather(1, drop_similar(others, count - begun, max(AT_ONCE, length // SHARE)))
            kept |= zip(tiles, torch.cat([first, left], 1), strict=True)
    return selection_of([kept[tile] for tile in range(len(lengths))], significance, start)


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
    if not count:
        return place[:, :0]
    directions = normalize(features.float(), dim=-1)
    highest = _of_all(directions) if length <= WHOLE else _of_each(directions)
    while place.shape[1] > count:
        even, odd = place[:, ::2], place[:, 1::2]
        stay = even.shape[1] - min(at_once, place.shape[1] - count, even.shape[1])
        unlike = highest(even, odd).argsort(dim=1, stable=True)[:, :stay].sort(1).values
        place = torch.cat([even.gather(1, unlike), odd], 1)
    return place


def _of_all(directions: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Highest cosines (T, E) of even tokens (T, E) to odd ones (T, O), read off those of all pairs.

    Whole rows of the odd ones, which lie together in memory, are compared: picking out the pairs takes longer.
    """
    tiles, length, _ = directions.shape
    cosines = (directions @ directions.mT).flatten(0, 1)
    offsets = torch.arange(0, tiles * length, length, device=directions.device)[:, None]
    block = queries_at_a_time(directions.device, tiles * length)

    def highest(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
        blocks = (cosines.index_select(0, rows.flatten()) for rows in torch.split(odd + offsets, block, 1))
        return reduce(torch.maximum, (rows.view(tiles, -1, length).amax(1) for rows in blocks)).gather(1, even)

    return highest


def _of_each(directions: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The same, computed in blocks when it is asked for."""

    def highest(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
        pairs = zip(directions, even, odd, strict=True)
        return torch.stack([nearest(tile[rows], tile[columns])[0] for tile, rows, columns in pairs])

    return highest
