"""How far attention is concentrated on few tokens (FoPru §3: "over 80% … on less than 25% of the tokens")."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError

POINTS = tuple(point / 20 for point in range(21))  # 0, 5, …, 100 % of the tokens


def mass_curve(scores: torch.Tensor, points: Sequence[float] = POINTS) -> list[float]:
    """The share of the total that the highest scores hold together.

    Args:
        scores: (N,), none negative.
        points: shares of the tokens in [0, 1]; between whole numbers of tokens the curve is a straight line.

    Returns:
        One share in [0, 1] a point. Where the total is 0 every token counts alike.

    Raises:
        UserError: there is no score, one is negative or no number, or a point lies outside [0, 1].
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
    """The smallest share of the N tokens that together hold at least ``mass`` of the total.

    Args:
        scores: (N,), none negative.
        mass: share of the total, in (0, 1].

    Raises:
        UserError: there is no score, one is negative or no number, or ``mass`` lies outside (0, 1].
    """
    if not 0 < mass <= 1:
        raise UserError(f"mass {mass:g} is not in (0, 1]", "give a share of the total attention, e.g. 0.8")
    held = _held(scores)
    reached = held >= mass - 1e-9  # what was summed in another order may miss it by a rounding
    return int(reached.nonzero()[0]) / (len(held) - 1)


def _held(scores: torch.Tensor) -> torch.Tensor:
    """The share of the total (N + 1,) float64 on the CPU that the 0, 1, …, N highest scores hold."""
    ordered = scores.detach().to("cpu", torch.float64).sort(descending=True).values
    if ordered.ndim != 1 or not len(ordered) or not bool((ordered >= 0).all() & ordered.isfinite().all()):
        raise UserError("attention is a list of numbers that are not negative", "give one score a visual token")
    total = ordered.sum()
    shares = ordered / total if total > 0 else torch.full_like(ordered, 1 / len(ordered))
    held = torch.cat([shares.new_zeros(1), shares.cumsum(0)])
    return held / held[-1]
