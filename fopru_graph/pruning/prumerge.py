"""PruMerge and PruMerge+ (arXiv 2403.15388): keep outliers, add uniform positions, merge the rest into what is kept.

The authors' code scores by the CLS token's attention in the encoder layer above the one that is read (`AttentionAbove`
and ``heads: joint`` of `ClsAttention`), and hands lists of several pictures on without pruning them; here each tile is
pruned by itself.
"""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from fopru_graph.pruning.attention import visual_keys
from fopru_graph.pruning.similarity import most_similar
from fopru_graph.values import Tile


def outlier_select(scores: torch.Tensor, factor: float = 1.5) -> torch.Tensor:
    """Indices of the scores above Q3 + factor · (Q3 − Q1), so that their number follows the picture.

    Quartiles are interpolated linearly. They are the tile's own; the authors' code takes them over a whole batch, whose
    pictures then change each other's tokens.

    Args:
        scores: (N,) significance.
        factor: number of interquartile ranges above the third quartile from which a score is an outlier.

    Returns:
        (K,) int64 indices in descending order of score, of equal scores the lower index first; without any outlier the
        highest score alone.
    """
    scores = scores.float()
    first, third = torch.quantile(scores, scores.new_tensor([0.25, 0.75]))
    count = int((scores > third + factor * (third - first)).sum())
    return torch.argsort(scores, descending=True, stable=True)[: max(1, count)]


def add_uniform(kept: torch.Tensor, available: int) -> torch.Tensor:
    """PruMerge+: selected indices, then those of the uniform positions 0, s, 2s, … < N − 1 that are not among them.

    As in the authors' code s = ⌊⌊N / K⌋ / 3⌋, which adds about three positions for each selected token. If more than a
    third is selected, s is zero there and the code fails; here s is at least 1, so all tokens but the last are kept.

    Args:
        kept: (K,) int64 indices of the selected tokens, in any order, without repeats.
        available: N.

    Returns:
        (K',) int64, the selected indices in their order, then the others ascending.
    """
    step = max(1, available // max(1, len(kept)) // 3)
    uniform = torch.arange(0, max(0, available - 1), step, device=kept.device)
    return torch.cat([kept, uniform[~torch.isin(uniform, kept)]])


def merge_map(
    tile: Tile, kept: torch.Tensor, scores: torch.Tensor, neighbours: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights by which tokens are merged, for `linear_merge.linear_merge`.

    A kept token i becomes x_i + Σ a_j x_j over the tokens j ≠ i, kept or dropped, whose keys (of all heads side by
    side) have the highest cosine to its key; of equal ones the lower index is taken. If tokens were dropped, Σ a_j x_j
    over all of them is a further token, which replaces the most significant of them. As in the authors' code, the a are
    not normalised.

    Args:
        tile: N tokens and their keys.
        kept: (K,) int64 indices of the kept tokens, in any order, without repeats.
        scores: (N,) float32 significance, the a.
        neighbours: number of tokens merged into a kept one; all others where there are fewer.

    Returns:
        ``weights`` (K', N) float32, and ``target_indices`` (K',) int64: ``kept`` in its order, then the index of the
        further token, if any.
    """
    keys, scores = visual_keys(tile.attention, "joint"), scores.to(kept.device)
    itself = one_hot(kept, len(scores)).bool()  # (K, N)
    near = most_similar(keys[kept], keys, neighbours, banned=itself)[1]
    weights = itself.float().scatter(1, near, scores[near]).masked_fill(itself, 1.0)
    dropped = scores.index_fill(0, kept, 0.0)
    best = scores.index_fill(0, kept, -torch.inf).argsort(descending=True, stable=True)[: len(scores) - len(kept)][:1]
    return torch.cat([weights, dropped.expand(len(best), -1)]), torch.cat([kept, best])
