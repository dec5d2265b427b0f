"""Cumulative scores: how much of all attention the highest scores hold, and a selection that follows it.

FoPru observes that less than 25 % of the tokens hold over 80 % of the attention (§3, Fig. 1). How many do so differs
between pictures, yet FoPru keeps a fixed ratio; selecting by the cumulative score is our extension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError

POINTS = tuple(point / 20 for point in range(21))  # 0, 5, …, 100 % of the tokens

# Sums of rounded scores miss a share that they hold exactly by less than this.
_SLACK = 1e-9


def cumulative_select(scores: Sequence[torch.Tensor], mass: float = 0.8) -> list[torch.Tensor]:
    """Each tile's smallest set of tokens that holds a share of the sum of its scores.

    How many those are the host must know: it waits for the device once, for all tiles together.

    Args:
        scores: (N,) significance of each tile, not negative.
        mass: share of the sum, in (0, 1].

    Returns:
        (K,) int64 indices a tile, in descending order of score, at least one; equal scores keep the lower index.

    Raises:
        UserError: ``mass`` is outside (0, 1], or a score is negative, so that shares mean nothing.
    """
    if not 0 < mass <= 1:
        raise UserError(f"mass must be in (0, 1], not {mass}", "it is the share of all significance that is kept")
    orders = [torch.argsort(tile, descending=True, stable=True) for tile in scores]
    ranked = torch.cat([tile[order] for tile, order in zip(scores, orders, strict=True)]).cpu().double()
    tiles = ranked.split_with_sizes([len(order) for order in orders])
    return [order[: _holding(tile, mass)] for order, tile in zip(orders, tiles, strict=True)]


def _holding(ranked: torch.Tensor, mass: float) -> int:
    """How many of the scores (N,), the highest first, hold the share ``mass`` of their sum."""
    if ranked[-1] < 0:
        raise UserError("some scores are negative, so no share of their sum can be kept", "use type: RankPrune")
    sums = ranked.cumsum(0)
    return int((sums < mass * float(sums[-1]) * (1 - _SLACK)).sum()) + 1


def mass_curve(scores: torch.Tensor, points: Sequence[float] = POINTS) -> list[float]:
    """The share of the sum of all scores that the highest scores hold together.

    Args:
        scores: (N,), not negative.
        points: shares of the tokens in [0, 1]; between whole numbers of tokens the curve is a straight line.

    Returns:
        A share in [0, 1] for each point. If the sum is 0, every token counts alike.

    Raises:
        UserError: there is no score, a score is negative or no number, or a point lies outside [0, 1].
    """
    held = _held(scores)
    count = len(held) - 1
    if not all(0 <= point <= 1 for point in points):
        raise UserError("a point of the curve lies outside [0, 1]", "give shares of the tokens")
    curve = []
    for point in points:
        whole, part = divmod(point * count, 1)
        below, above = held[int(whole)], held[min(int(whole) + 1, count)]
        curve.append(float(below + part * (above - below)))
    return curve


def tokens_for(scores: torch.Tensor, mass: float = 0.8) -> float:
    """The smallest share of the N tokens that together hold at least the share ``mass`` of the sum of all scores.

    Args:
        scores: (N,), not negative.
        mass: share of the sum, in (0, 1].

    Raises:
        UserError: there is no score, a score is negative or no number, or ``mass`` lies outside (0, 1].
    """
    if not 0 < mass <= 1:
        raise UserError(f"mass {mass:g} is not in (0, 1]", "give a share of the total attention, e.g. 0.8")
    held = _held(scores)
    reached = held >= mass - _SLACK
    return int(reached.nonzero()[0]) / (len(held) - 1)


def _held(scores: torch.Tensor) -> torch.Tensor:
    """(N + 1,) float64 on the CPU: the share of the sum that the 0, 1, …, N highest scores hold."""
    ordered = scores.detach().to("cpu", torch.float64).sort(descending=True).values
    if ordered.ndim != 1 or not len(ordered) or not bool((ordered >= 0).all() & ordered.isfinite().all()):
        raise UserError("attention is a list of numbers that are not negative", "give one score a visual token")
    total = ordered.sum()
    shares = ordered / total if total > 0 else torch.full_like(ordered, 1 / len(ordered))
    held = torch.cat([shares.new_zeros(1), shares.cumsum(0)])
    return held / held[-1]
