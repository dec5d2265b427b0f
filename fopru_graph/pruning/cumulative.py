"""A budget that follows the scores: few tokens where a few hold most of the attention (FoPru, Fig. 1)."""

from __future__ import annotations

import torch

from fopru_graph.errors import UserError

# Sums of rounded scores miss a share that they hold exactly by less than this.
_SLACK = 1e-9


def mass_select(scores: torch.Tensor, mass: float = 0.8) -> torch.Tensor:
    """The smallest set of tokens whose scores are at least a share of all scores together.

    FoPru observes that a few tokens hold most of the attention, and how many differs; it prunes to a fixed ratio all
    the same. This rule is our extension.

    Args:
        scores: (N,) significance, not negative.
        mass: share of the sum, in (0, 1].

    Returns:
        (K,) int64 indices in descending order of score, at least one; equal scores keep the lower index.

    Raises:
        UserError: ``mass`` is outside (0, 1], or a score is negative, so that shares mean nothing.
    """
    if not 0 < mass <= 1:
        raise UserError(f"mass must be in (0, 1], not {mass}", "it is the share of all significance that is kept")
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = scores[order].cpu().double()  # the host must know the count in any case; not all devices have doubles
    if ranked[-1] < 0:
        raise UserError("some scores are negative, so no share of their sum can be kept", "use type: RankPrune")
    sums = ranked.cumsum(0)
    short = int((sums < mass * float(sums[-1]) * (1 - _SLACK)).sum())
    return order[: short + 1]
