"""Tokens that are unlike each other: greedy selection from the features of whole tiles or whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch.nn.functional import normalize

from fopru_graph.errors import UserError
from fopru_graph.pruning.gram import WHOLE, Gram, SquaredGram
from fopru_graph.pruning.greedy import Coverage, Determinant, Farthest, Gain, greedy_select
from fopru_graph.pruning.select import (
    Over,
    check_budget,
    check_tokens,
    group_count,
    group_start,
    split_parts,
    tile_groups,
)
from fopru_graph.values import Budget, Selection, Significance, VisionFeatures

DiversityGain = Literal["farthest", "determinant", "coverage", "transport"]

TRANSPORT_WEIGHT = 0.01  # of OTPrune


def diverse_select(
    features: torch.Tensor,
    gain: DiversityGain,
    count: int,
    weights: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """The tokens that a greedy loop takes in each of B tiles.

    Args:
        features: (B, N, C) of any floating type, compared in float32.
        gain: ``farthest`` maximises the smallest distance 1 − cosine (DivPrune), first the token that is farthest from
            its nearest other one; ``determinant`` that of the cosines, times the weights of row and column (CDPruner);
            ``coverage`` Σ_i max_j cosine_ij, each step times the token's weight (SCOPE); ``transport`` the determinant
            of I + 0.01 · G², G the inner products of features whose columns have mean 0 and variance 1 (OTPrune). A
            zero vector has cosine 0 to all; ``farthest`` takes it for as far from a direction as directions 60° apart.
        count: K.
        weights: (B, N) float32, for ``determinant`` and ``coverage``.
        start: (B, S) int64, see `greedy_select`.

    Returns:
        (B, K) int64 in the order in which they were taken; of equal gains the lower index is taken first.
    """
    vectors = features.float()
    rule: Gain
    if gain == "transport":
        rule = Determinant(SquaredGram(_standardised(vectors), count, TRANSPORT_WEIGHT), count)
    else:
        directions = normalize(vectors, dim=-1)
        if gain == "determinant" and weights is not None:
            directions = directions * weights[..., None]
        gram = Gram(directions, count)
        if gain == "farthest":
            rule = Farthest(gram)
        else:
            rule = Determinant(gram, count) if gain == "determinant" else Coverage(gram, weights)
    return greedy_select(rule, count, start)


def diversity_prune(
    features: VisionFeatures,
    gain: DiversityGain,
    significance: Significance | None,
    ratio: float | None,
    tokens: int | None,
    over: Over = "tile",
    budget: Budget | None = None,
    start: Selection | None = None,
) -> Selection:
    """Spend a budget by `diverse_select` on each tile, or on all tiles of an image at once, in the order of selection.

    Raises:
        UserError: the gain reads no significance, that of other tokens is given, ``budget`` or ``start`` are of other
            tiles, or the budget is missing or out of bounds.
    """
    _check(features, gain, significance)
    tiles, counts = features.tiles, features.counts
    check_budget(counts, budget, start)
    scores = significance.scores if significance is not None else ()
    alike: dict[tuple[int, int, int, int], list[_Group]] = {}
    for bands in tile_groups(len(tiles), over, [tile.image for tile in tiles]):
        members = list(chain.from_iterable(bands))
        count = group_count(members, counts, ratio, tokens, budget)
        first = group_start(members, counts, start, count).to(tiles[0].features.device)
        size = sum(counts[tile] for tile in members)
        width = tiles[members[0]].features.shape[1]  # LLaVA-OneVision projects the pictures that it shrinks
        alike.setdefault((size, width, count, len(first)), []).append(_Group(members, first))
    kept: dict[int, torch.Tensor] = {}
    for (size, _, count, _), groups in alike.items():
        at_once = max(1, WHOLE // size**2)
        for batch in (groups[i : i + at_once] for i in range(0, len(groups), at_once)):
            vectors = _stacked([tile.features for tile in tiles], batch)
            weights = _stacked(scores, batch).to(vectors.device) if scores else None
            picks = diverse_select(vectors, gain, count, weights, torch.stack([group.first for group in batch]))
            for group, chosen in zip(batch, picks, strict=True):
                kept |= zip(group.tiles, split_parts(chosen, [counts[tile] for tile in group.tiles]), strict=True)
    sums = torch.stack([values.float().sum() for values in (*(tile.features for tile in tiles), *scores)])
    return Selection(tuple(kept[tile] for tile in range(len(tiles))), counts, sums.isfinite().all())


@dataclass(frozen=True, eq=False)
class _Group:
    """Tiles that share a budget, and what they keep already."""

    tiles: list[int]
    first: torch.Tensor


def _standardised(vectors: torch.Tensor) -> torch.Tensor:
    """(B, N, C) with mean 0 and variance 1 of each column over a tile's tokens; 0 where a column does not vary."""
    centred = vectors - vectors.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)


def _check(features: VisionFeatures, gain: DiversityGain, significance: Significance | None) -> None:
    if significance is None:
        return
    if gain not in ("determinant", "coverage"):
        raise UserError(f"gain {gain} reads no significance", "take it out, or choose gain: determinant or coverage")
    check_tokens(features, significance)


def _stacked(parts: Sequence[torch.Tensor], groups: Sequence[_Group]) -> torch.Tensor:
    """(B, N, …) float32: the parts of each group end to end."""
    return torch.stack([torch.cat([parts[tile] for tile in group.tiles]).float() for group in groups])
