"""PruMerge's merging (arXiv 2403.15388): kept tokens take up similar ones, one more stands for all dropped ones."""

from __future__ import annotations

import torch

from fopru_graph.pruning.attention import BLOCK
from fopru_graph.pruning.pool_scores import pool_scores
from fopru_graph.values import TileAttention

NEIGHBOURS = 32


def merge_map(
    scores: torch.Tensor, keys: torch.Tensor, kept: torch.Tensor, neighbours: int = NEIGHBOURS
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights with which tokens are merged, for `mix.mixed`.

    A kept token i becomes x_i + Σ a_j x_j over the tokens j ≠ i, kept or dropped, whose keys have the highest cosine to
    its own; equal ones take the lower index. Where tokens were dropped, a further one is Σ a_j x_j over all of them and
    takes the place of the most significant. The a are not normalised, as in the authors' code.

    Args:
        scores: (N,) significance, the a.
        keys: (N, C), see `flat_keys`.
        kept: (K,) int64 indices of the kept tokens, in any order, without repeats.
        neighbours: how many tokens a kept one takes up; all others where there are fewer.

    Returns:
        ``weights`` (K', N) float32, and ``places`` (K',) int64: ``kept`` in its order, then any further token's.
    """
    count, scores = len(scores), scores.float()
    weights = scores.new_zeros(len(kept), count)
    most = min(neighbours, count - 1)
    if most:
        directions = torch.nn.functional.normalize(keys.float(), dim=1)
        # In blocks, as only the weights themselves need be there for all tokens at once.
        nearest = torch.cat([_nearest(directions, some, most) for some in torch.split(kept, max(1, BLOCK // count))])
        weights.scatter_(1, nearest, scores[nearest])
    weights.scatter_(1, kept[:, None], 1.0)
    dropped = torch.ones(count, dtype=torch.bool, device=scores.device).index_fill(0, kept, False)
    if len(kept) == count:
        return weights, kept
    place = scores.masked_fill(~dropped, -torch.inf).argsort(descending=True, stable=True)[:1]
    return torch.cat([weights, (scores * dropped)[None]]), torch.cat([kept, place])


def flat_keys(attention: TileAttention) -> torch.Tensor:
    """The keys of all heads of each visual token side by side, (N, H · d); means where a model merges patches."""
    keys = attention.key[:, attention.prefix :].transpose(0, 1).flatten(1)
    return pool_scores(keys, attention.patch_groups, attention.weights)


def _nearest(directions: torch.Tensor, kept: torch.Tensor, most: int) -> torch.Tensor:
    """Indices (K, most) of the tokens with the highest cosine to each of ``kept`` (K,), itself left out."""
    cosines = directions[kept] @ directions.T
    cosines = cosines.scatter(1, kept[:, None], -torch.inf)
    return cosines.argsort(dim=1, descending=True, stable=True)[:, :most]
