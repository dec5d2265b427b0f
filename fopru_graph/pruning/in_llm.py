"""Choosing which positions survive a cut inside the language model, for samples of different lengths at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_TEXT, _VISUAL, _PADDING = 0, 1, 2


def surviving_positions(
    scores: torch.Tensor, visual: torch.Tensor, valid: torch.Tensor, kept: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that stay: all valid text and, sample by sample, the best-scored visual tokens.

    How many stay is known beforehand, so that the host never waits for the device here.

    Args:
        scores: (B, L) score of every position; only those of visual positions are compared, equal ones keep the lower.
        visual: (B, L) bool, the visual tokens.
        valid: (B, L) bool, False for padding.
        kept: positions that stay of each sample: all its valid text and so many of its visual tokens.

    Returns:
        ``positions`` (B, M) int64 with M = max(kept), ascending, with fillers on the left where a sample keeps fewer;
        and ``real`` (B, M) bool, False for fillers.
    """
    kind = torch.full_like(scores, _TEXT, dtype=torch.int8)
    kind = kind.masked_fill(visual, _VISUAL).masked_fill(~valid, _PADDING)
    order = scores.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, kind.gather(1, order).argsort(dim=1, stable=True))
    longest = max(kept)
    column = torch.arange(longest, device=scores.device)
    ends = torch.tensor(kept).to(scores.device, non_blocking=True)
    places = order[:, :longest].masked_fill(column >= ends[:, None], -1).sort(1).values
    return places.clamp(min=0), places >= 0
