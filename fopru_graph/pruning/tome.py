"""ToMe (arXiv 2210.09461): bipartite soft matching merges the most similar tokens, a few in each round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.nn.functional import one_hot

from fopru_graph.pruning.attention import visual_keys
from fopru_graph.pruning.batches import each_in_batches
from fopru_graph.pruning.linear_merge import mean_of_members
from fopru_graph.pruning.select import kept_count
from fopru_graph.pruning.similarity import nearest
from fopru_graph.values import TileAttention


def merges_of_rounds(available: int, kept: int, rounds: int) -> list[int]:
    """How many tokens merge in each round until ``kept`` of ``available`` are left: equal shares of all merges.

    A round merges half of its tokens at most, so that small budgets take more rounds than asked for.
    """
    merges, share = [], -(-(available - kept) // rounds)
    while available > kept:
        merges.append(min(share, available // 2, available - kept))
        available -= merges[-1]
    return merges


def bipartite_merge(keys: torch.Tensor, kept: int, rounds: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge tokens until K are left, for T tiles at once; how many rounds that takes the host knows beforehand.

    In a round the tokens in raster order are dealt into two halves in turn. Each of the first half is matched with the
    most similar one of the second, of equal ones the lower; the r best matches (of equal ones the lower) merge there,
    and their keys are averaged with the number of tokens that each stands for as weights.

    Args:
        keys: (T, N, C) that similarity is the cosine of.
        kept: K, between 1 and N.
        rounds: equal shares that the N − K merges are made in.

    Returns:
        ``weights`` (T, K, N) float32: each merged token is the mean of all that went into it; and ``target_indices``
        (T, K) int64, ascending: the token that it takes the place of, for `linear_merge.linear_merge`.
    """
    tiles, count, _ = keys.shape
    tile = torch.arange(tiles, device=keys.device)[:, None]
    # (T, n) the tokens that are left, and (T, N) the one of them that each went into: at first itself
    left = into = itself = torch.arange(count, device=keys.device).repeat(tiles, 1)
    sums = keys.float()  # (T, n, C) of all that went into a token: their directions are those of the means
    for merges in merges_of_rounds(count, kept, rounds):
        highest, match = nearest(sums[:, ::2], sums[:, 1::2])
        best = highest.argsort(dim=1, descending=True, stable=True)[:, :merges]
        source, target = 2 * best, 2 * match.gather(1, best) + 1
        into = itself.scatter(1, left[tile, source], left[tile, target]).gather(1, into)
        sums = sums + one_hot(target, left.shape[1]).mT.float() @ sums[tile, source]
        stays = torch.zeros_like(left).scatter(1, source, 1).argsort(dim=1, stable=True)[:, :-merges]
        left, sums = left[tile, stays], sums[tile, stays]
    return mean_of_members(into, left), left


def tile_maps(
    attentions: Sequence[TileAttention], ratio: float | None, tokens: int | None, rounds: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each tile's `bipartite_merge` by the mean over heads of its keys; tiles of equally many tokens go together.

    Raises:
        UserError: the budget is missing or out of bounds.
    """

    def merge(keys: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        return zip(*bipartite_merge(keys, kept_count(keys.shape[1], ratio, tokens), rounds), strict=True)

    return each_in_batches([visual_keys(attention) for attention in attentions], merge)
