"""ToMe (arXiv 2210.09461): bipartite soft matching merges the most similar tokens, a few in each round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize, one_hot

from fopru_graph.pruning.attention import mean_keys, queries_at_a_time
from fopru_graph.pruning.select import kept_count
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
    keys = keys.float()
    tile = torch.arange(tiles, device=keys.device)[:, None]
    index = torch.arange(count, device=keys.device).repeat(tiles, 1)  # the tokens that are left, (T, n)
    place, size = index, torch.ones_like(keys[..., :1])  # (T, N) where in them each token went; (T, n, 1) its number
    for merges in merges_of_rounds(count, kept, rounds):
        unit = normalize(keys, dim=-1)
        first, second = unit[:, ::2], unit[:, 1::2].mT
        step = queries_at_a_time(keys.device, second.shape[-1] * tiles)
        highest = torch.cat([(block @ second).amax(-1) for block in torch.split(first, step, 1)], 1)
        best = highest.argsort(dim=1, descending=True, stable=True)[:, :merges]
        match = (first[tile, best] @ second).argmax(-1)  # of the best only: indices take longer than maxima
        source, target = 2 * best, 2 * match + 1
        into = one_hot(target, index.shape[1]).mT.to(keys.dtype)  # (T, n, r)
        keys = keys * size + into @ (keys * size)[tile, source]
        size = size + into @ size[tile, source]
        gone = torch.zeros_like(index).scatter(1, source, 1)
        goes = torch.arange(index.shape[1], device=keys.device).repeat(tiles, 1).scatter(1, source, target)
        place = (torch.cumsum(1 - gone, 1) - 1).gather(1, goes).gather(1, place)
        left = gone.argsort(dim=1, stable=True)[:, : index.shape[1] - merges]
        index, size = index[tile, left], size[tile, left]
        keys = keys[tile, left] / size
    weights = one_hot(place, kept).mT.float()
    return weights / weights.sum(-1, keepdim=True), index


def tile_maps(
    attentions: Sequence[TileAttention], ratio: float | None, tokens: int | None, rounds: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each tile's `bipartite_merge` by the mean over heads of its keys; tiles of equally many tokens go together.

    Raises:
        UserError: the budget is missing or out of bounds.
    """
    keys = [mean_keys(attention) for attention in attentions]
    maps: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for count in dict.fromkeys(map(len, keys)):
        alike = [tile for tile, tile_keys in enumerate(keys) if len(tile_keys) == count]
        batch = torch.stack([keys[tile] for tile in alike])
        maps |= zip(
            alike, zip(*bipartite_merge(batch, kept_count(count, ratio, tokens), rounds), strict=True), strict=True
        )
    return [maps[tile] for tile in range(len(keys))]
