"""FoPru's token reordering (paper §4.4, Algorithm 1 line 14)."""

from __future__ import annotations

import torch


def reorder(indices: torch.Tensor) -> torch.Tensor:
    """Indices (K,) sorted ascending, which restores the raster order of the kept tokens."""
    return indices.sort().values
