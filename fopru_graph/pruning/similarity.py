"""Cosines between tokens, in blocks: the similarities of many tokens are never in memory all at once.

Everything is float32, whatever the features are: half precision cannot tell nearly equal tokens apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.pruning.linear_merge import mean_of_members


def cosine_blocks(rows: torch.Tensor, columns: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """The cosines of ``rows`` to ``columns``, a block of rows at a time. A zero vector has cosine 0 to everything.

    Args:
        rows: (…, K, C) of any floating type.
        columns: (…, N, C) on the same device, with the same leading sizes.

    Yields:
        Which rows, and their cosines (…, k, N) float32.
    """
    yield from product_blocks(normalize(rows.float(), dim=-1), normalize(columns.float(), dim=-1))


def product_blocks(rows: torch.Tensor, columns: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """As `cosine_blocks`, of inner products, in the type of the vectors; of no rows there is one empty block."""
    columns = columns.mT
    step = queries_at_a_time(rows.device, columns.shape[-1] * columns.shape[:-2].numel())
    for start in range(0, max(1, rows.shape[-2]), step):
        block = slice(start, start + step)
        yield block, rows[..., block, :] @ columns


def most_similar(
    rows: torch.Tensor, columns: torch.Tensor, most: int, banned: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest cosines of each row to any column, and those columns; of equal ones the lower come first.

    Args:
        rows: (…, K, C).
        columns: (…, N, C).
        most: n, how many; all where there are fewer.
        banned: (…, K, N) bool, pairs that come last, as if their cosine were −2; None for none.

    Returns:
        ``cosine`` (…, K, n) float32 and ``column`` (…, K, n) int64, the highest first.
    """
    best = []
    for block, cosines in cosine_blocks(rows, columns):
        if banned is not None:
            cosines = cosines.masked_fill(banned[..., block, :], -2.0)
        ranked = cosines.max(-1, keepdim=True) if most == 1 else cosines.sort(dim=-1, stable=True, descending=True)
        best.append((ranked.values[..., :most], ranked.indices[..., :most]))
    cosine, column = (torch.cat(parts, -2) for parts in zip(*best, strict=True))
    return cosine, column


def nearest(rows: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest cosine (…, K) of each row to any column, and that column (…, K); of equal ones the lower."""
    cosine, column = most_similar(rows, columns, 1)
    return cosine[..., 0], column[..., 0]


def average_into_nearest(features: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The weights by which every dropped token is averaged into the kept one that is most similar to it.

    A kept token becomes the mean of itself and the dropped ones that are nearest to it.

    Args:
        features: (N, C) that similarity is measured on.
        kept: (K,) int64 without repeats.

    Returns:
        (K, N) float32, rows that sum to one, for `linear_merge.linear_merge`.
    """
    if not len(kept):
        return torch.zeros(0, len(features), device=features.device)
    into = kept[nearest(features, features[kept])[1]]
    return mean_of_members(into.index_copy(0, kept, kept), kept)
