"""Tokens that are unlike each other: greedy selection from the features of whole tiles or whole images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import torch
from torch.nn.functional import normalize

from fopru_graph.errors import UserError
from fopru_graph.pruning.gram import WHOLE, Gram, SquaredGram
from fopru_graph.pruning.greedy import Coverage, Determinant, Farthest, greedy_select
from fopru_graph.pruning.select import Over, kept_count, split_parts, tile_groups
from fopru_graph.values import Selection, Significance, VisionFeatures

DiversityGain = Literal["farthest", "determinant", "coverage", "transport"]

TRANSPORT_WEIGHT = 0.01  # of OTPrune


def diverse_select(
    features: torch.Tensor, gain: DiversityGain, count: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The tokens that a greedy loop takes in each of B tiles.

    Args:
        features: (B, N, C) of any floating type, compared in float32.
        gain: ``farthest`` maximises the smallest distance 1 − cosine (DivPrune), first the token that is farthest from
            its nearest other one; ``determinant`` that of the cosines, times the weights of row and column (CDPruner);
            ``coverage`` Σ_i max_j cosine_ij, each step times the token's weight (SCOPE); ``transport`` the determinant
            of I + 0.01 · G², G the inner products of features whose columns have length one (OTPrune). A zero vector
            has cosine 0 to all; ``farthest`` takes it for as far from a direction as directions 60° apart.
        count: K.
        weights: (B, N) float32, for ``determinant`` and ``coverage``.

    Returns:
        (B, K) int64 in the order in which they were taken; of equal gains the lower index is taken first.
    """
    vectors = features.float()
    if gain == "transport":
        return greedy_select(Determinant(SquaredGram(normalize(vectors, dim=1), count, TRANSPORT_WEIGHT), count), count)
    gram = Gram(normalize(vectors, dim=-1), count)
    if gain == "farthest":
        return greedy_select(Farthest(gram), count)
    if gain == "determinant":
        return greedy_select(Determinant(gram, count, weights), count)
    return greedy_select(Coverage(gram, weights), count)


def diversity_prune(
    features: VisionFeatures,
    gain: DiversityGain,
    significance: Significance | None,
    ratio: float | None,
    tokens: int | None,
    over: Over = "tile",
) -> Selection:
    """Spend a budget by `diverse_select` on each tile, or on all tiles of an image at once, in the order of selection.

    Raises:
        UserError: the gain reads no significance, that of other tokens is given, or the budget is missing or out of
            bounds.
    """
    _check(features, gain, significance)
    tiles = features.tiles
    scores = significance.scores if significance is not None else ()
    groups = [list(chain.from_iterable(bands)) for bands in tile_groups(len(tiles), over, [t.image for t in tiles])]
    by_size: dict[int, list[list[int]]] = {}
    for group in groups:
        by_size.setdefault(sum(features.counts[tile] for tile in group), []).append(group)
    kept: dict[int, torch.Tensor] = {}
    for size, alike in by_size.items():
        at_once = max(1, WHOLE // size**2)
        for start in range(0, len(alike), at_once):
            batch = alike[start : start + at_once]
            vectors = _stacked([tile.features for tile in tiles], batch)
            weights = _stacked(scores, batch).to(vectors.device) if scores else None
            picks = diverse_select(vectors, gain, kept_count(size, ratio, tokens), weights)
            for group, chosen in zip(batch, picks, strict=True):
                kept |= zip(group, split_parts(chosen, [features.counts[tile] for tile in group]), strict=True)
    finite = torch.stack([vectors.float().sum() for vectors in (*(tile.features for tile in tiles), *scores)])
    return Selection(tuple(kept[tile] for tile in range(len(tiles))), features.counts, finite.isfinite().all())


def _check(features: VisionFeatures, gain: DiversityGain, significance: Significance | None) -> None:
    if significance is None:
        return
    if gain not in ("determinant", "coverage"):
        raise UserError(f"gain {gain} reads no significance", "take it out, or choose gain: determinant or coverage")
    if features.counts != tuple(map(len, significance.scores)):
        raise UserError(
            "features and significance were made from different tokens", "wire them to the same VisionEncode"
        )


def _stacked(parts: Sequence[torch.Tensor], groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, N, …) float32: the parts of each group end to end."""
    return torch.stack([torch.cat([parts[tile] for tile in group]).float() for group in groups])
