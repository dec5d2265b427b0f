"""Tokens that are unlike each other: greedy selection from the features of whole tiles or whole images."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import normalize

from fopru_graph.errors import UserError
from fopru_graph.pruning.batches import choose_in_batches
from fopru_graph.pruning.gram import Gram, SquaredGram
from fopru_graph.pruning.greedy import Coverage, Determinant, Farthest, Gain, greedy_select
from fopru_graph.pruning.select import Over, check_tokens
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
    scores = significance.scores if significance is not None else ()

    def choose(vectors: torch.Tensor, weights: torch.Tensor | None, first: torch.Tensor, count: int) -> torch.Tensor:
        return diverse_select(vectors, gain, count, weights, first)

    return choose_in_batches(features, scores, ratio, tokens, over, budget, start, choose)


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
