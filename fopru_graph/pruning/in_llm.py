"""Choosing which positions survive a cut inside the language model, for samples of different lengths at once."""

from __future__ import annotations

import torch

from fopru_graph.pruning.budget import kept_count
from fopru_graph.pruning.rank import rank_select


def surviving_positions(
    scores: torch.Tensor,
    visual: torch.Tensor,
    valid: torch.Tensor,
    ratio: float | None = None,
    tokens: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that stay: all valid text and, sample by sample, the best-scored visual tokens.

    Args:
        scores: (B, L) score of every position; only those of visual positions are compared.
        visual: (B, L) bool, the visual tokens.
        valid: (B, L) bool, False for padding.
        ratio: share kept of each sample's visual tokens.
        tokens: number kept of each sample's visual tokens; wins over ``ratio``.

    Returns:
        ``positions`` (B, M) int64, ascending, with fillers on the left where a sample keeps fewer than M; and ``real``
        (B, M) bool, False for fillers.

    Raises:
        UserError: the budget is missing or out of bounds.
    """
    kept = []
    for row, seen, live in zip(scores, visual, valid, strict=True):
        keep = live & ~seen
        places = (seen & live).nonzero()[:, 0]
        if len(places):
            keep[places[rank_select(row[places], tokens=kept_count(len(places), ratio, tokens))]] = True
        kept.append(keep.nonzero()[:, 0])
    longest = max(len(places) for places in kept)
    positions = torch.zeros(len(kept), longest, dtype=torch.int64, device=scores.device)
    real = torch.zeros(len(kept), longest, dtype=torch.bool, device=scores.device)
    for row_index, places in enumerate(kept):
        positions[row_index, longest - len(places) :] = places
        real[row_index, longest - len(places) :] = True
    return positions, real
