"""Budgets shared out over groups of visual tokens (chunks, windows, tiles), and the best tokens of each group.

How many tokens a group keeps follows from the scores, but how many all of them keep is known: nothing here waits for
the device.
"""

from __future__ import annotations

import torch

_SLACK = 1e-3  # a share that is whole but for the rounding of sums is not floored to one less


def share_out(total: int, weights: torch.Tensor, rooms: torch.Tensor) -> torch.Tensor:
    """Share ``total`` tokens out over G groups in proportion to their weights, no group more than it has.

    Shares are floored. What flooring and full groups leave over goes to the group of the largest weight, as far as it
    has room, then to the next, so that the sum is exact. Without any weight all groups weigh the same.

    Args:
        total: tokens, at most those of all groups.
        weights: (G,) float32, none negative.
        rooms: (G,) int64, tokens of each group.

    Returns:
        (G,) int64 with the sum ``total``.
    """
    whole = weights.sum()
    part = torch.where(whole > 0, weights / whole, 1 / len(weights))
    counts = (total * part + _SLACK).floor().long().clamp(min=0).minimum(rooms)
    best = torch.argsort(part, descending=True, stable=True)
    free = (rooms - counts)[best]
    extra = (total - counts.sum() - (free.cumsum(0) - free)).clamp(min=0).minimum(free)
    return counts.index_add(0, best, extra)


def best_of_groups(scores: torch.Tensor, groups: torch.Tensor, quotas: torch.Tensor, kept: int) -> torch.Tensor:
    """The highest scores of every group, as many as its quota.

    Args:
        scores: (N,) float32.
        groups: (N,) int64, each token's group, from 0.
        quotas: (G,) int64, none larger than its group.
        kept: the sum of the quotas.

    Returns:
        (kept,) int64: group by group, in descending order of score; of equal scores the lower index comes first.
    """
    best = torch.argsort(scores, descending=True, stable=True)
    best = best[torch.argsort(groups[best], stable=True)]
    sizes = torch.zeros_like(quotas).index_add(0, groups, torch.ones_like(groups))
    rank = torch.arange(len(best), device=best.device) - (sizes.cumsum(0) - sizes)[groups[best]]
    dropped = (rank >= quotas[groups[best]]).byte()
    return best[torch.argsort(dropped, stable=True)[:kept]]


def window_select(scores: torch.Tensor, grid: tuple[int, int], side: int, tokens: int) -> torch.Tensor:
    """The best ⌊tokens / windows⌋ tokens of every window of a tile's grid (VScan's local half).

    Args:
        scores: (N,) in raster order.
        grid: the tile's (h, w), which need not be divisible: windows then differ by a row or a column.
        side: windows along each side; a side of fewer tokens has a window for each.
        tokens: K.

    Returns:
        (at most K,) int64, window by window, best first; all of a window that has fewer.
    """
    sides = [min(side, length) for length in grid]
    down, across = (part_of(length, parts, scores.device) for length, parts in zip(grid, sides, strict=True))
    each = tokens // (sides[0] * sides[1])
    sizes = [high * wide for high in _sizes(grid[0], sides[0]) for wide in _sizes(grid[1], sides[1])]
    quotas = torch.full((len(sizes),), each, device=scores.device)
    groups = (down[:, None] * sides[1] + across).flatten()
    return best_of_groups(scores, groups, quotas, sum(min(each, size) for size in sizes))


def part_of(length: int, parts: int, device: torch.device) -> torch.Tensor:
    """(length,) int64: which of so many parts each place belongs to; they differ by at most one place."""
    return torch.arange(length, device=device) * parts // length


def _sizes(length: int, parts: int) -> list[int]:
    """The sizes of the parts of `part_of`."""
    starts = [-(-part * length // parts) for part in range(parts + 1)]
    return [end - start for start, end in zip(starts, starts[1:], strict=False)]
