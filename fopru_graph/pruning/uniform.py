"""PruMerge+'s selection: tokens at uniform distances beside those that were selected (arXiv 2403.15388)."""

from __future__ import annotations

import torch


def add_uniform(kept: torch.Tensor, available: int) -> torch.Tensor:
    """Selected indices, and after them the uniform positions 0, s, 2s, … < N − 1 that are not among them.

    As in the authors' code s = ⌊⌊N / K⌋ / 3⌋, about three positions for each selected token. Where more than a third is
    selected that is zero, on which their code fails; here s is at least 1, so that all tokens but the last are kept.

    Args:
        kept: (K,) int64 indices of the selected tokens, in any order, without repeats.
        available: N.

    Returns:
        (K',) int64, the selected ones in their order, the others ascending.
    """
    step = max(1, available // max(1, len(kept)) // 3)
    places = torch.arange(0, max(0, available - 1), step, device=kept.device)
    return torch.cat([kept, places[~torch.isin(places, kept)]])
