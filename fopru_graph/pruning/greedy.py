"""One greedy loop: take the token that gains most, let the gains know, and so on, in all tiles of a batch at once.

What a token gains is one of three rules; each needs one column of inner products for a pick (see `Gram`).
Nothing waits for the device, but for `Coverage` of too many tokens for their products to be in memory.
"""

from __future__ import annotations

from typing import Protocol

import torch

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.pruning.gram import Gram

ROUNDING = 1e-6  # a share this small of what a token could add is rounding
UNCOVERED = 1e-5  # and so is a gain this small of a sum of cosines


class Gain(Protocol):
    """What every token would add to those that are taken already."""

    def scores(self) -> torch.Tensor:
        """(B, N); what it says of tokens that are taken does not matter."""

    def take(self, picks: torch.Tensor, scores: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile; ``scores`` (B,) are its gains."""


def greedy_select(gain: Gain, count: int, start: torch.Tensor | None = None) -> torch.Tensor:
    """Take ``count`` times the token with the highest gain; of equal ones the lower index.

    Args:
        gain: the rule.
        count: K.
        start: (B, S) int64, S at most K, without repeats: tokens that are taken first.

    Returns:
        (B, K) int64, without repeats, in the order in which they were taken.
    """
    scores = gain.scores()
    picks = torch.zeros(len(scores), count, dtype=torch.int64, device=scores.device)
    taken = torch.zeros_like(scores, dtype=torch.bool)
    given = 0 if start is None else start.shape[1]
    for turn in range(count):
        if start is not None and turn < given:
            pick = start[:, turn]
            best = scores.gather(1, pick[:, None])[:, 0]
        else:
            best, pick = scores.masked_fill(taken, -torch.inf).max(1)
        picks[:, turn] = pick
        if turn + 1 < count:
            taken.scatter_(1, pick[:, None], True)
            gain.take(pick, best)
            scores = gain.scores()
    return picks


class Farthest:
    """The squared distance to the nearest token that is taken: 2 − 2 · cosine between unit vectors.

    Before any is taken, the gain is ``first`` (B, N), or the distance to the nearest other token.
    """

    def __init__(self, gram: Gram, first: torch.Tensor | None = None) -> None:
        self._gram = gram
        self._first = gram.isolation() if first is None else first
        self._distances: torch.Tensor | None = None

    def scores(self) -> torch.Tensor:
        """(B, N) squared distances."""
        return self._first if self._distances is None else self._distances

    def take(self, picks: torch.Tensor, scores: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        diagonal = self._gram.diagonal
        distances = (diagonal + diagonal.gather(1, picks[:, None])).sub_(self._gram.columns(picks), alpha=2)
        self._distances = distances if self._distances is None else torch.minimum(self._distances, distances)


class Determinant:
    """The factor by which a token enlarges the determinant of the products of those that are taken (greedy DPP).

    It is what a Cholesky factorisation leaves of the token's diagonal entry: the squared distance to what the taken
    tokens span. A token that they span up to rounding adds nothing: such come last, the larger diagonal entry first.

    Args:
        gram: the products.
        count: how many tokens will be taken at most.
    """

    def __init__(self, gram: Gram, count: int) -> None:
        self._gram = gram
        self.left = gram.diagonal.clone()
        self._rounding = ROUNDING * self.left
        self._spanned = -1 / (1 + self.left)
        self._factor = self.left.new_zeros(len(self.left), count, self.left.shape[1])  # columns of the Cholesky factor
        self._taken = 0

    def scores(self) -> torch.Tensor:
        """(B, N) factors of the determinant; negative ones order what adds nothing."""
        return torch.where(self.left > self._rounding, self.left, self._spanned)

    def take(self, picks: torch.Tensor, scores: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        known = self._factor[:, : self._taken]
        pick = known[self._gram.batch, :, picks]
        column = torch.baddbmm(self._gram.columns(picks)[:, None], pick[:, None], known, alpha=-1)[:, 0]
        column *= torch.where(scores > 0, scores.rsqrt(), 0.0)[:, None]
        self._factor[:, self._taken] = column
        self.left.addcmul_(column, column, value=-1)
        self._taken += 1


class Coverage:
    """How much better all tokens are covered: Σ_i max(0, S_ij − covered_i), times w_j (greedy facility location).

    S are the products and covered_i is the largest of token i with those that are taken, at least 0. Gains are kept up
    to date by the tokens that a pick covers better, which are few, in float64: in float32 their sums would not end at 0
    for a token that is covered already.

    Args:
        gram: S.
        weights: w (B, N) float32, not negative; None for ones.
    """

    def __init__(self, gram: Gram, weights: torch.Tensor | None = None) -> None:
        self._gram = gram
        self._exact = torch.float32 if gram.diagonal.device.type == "mps" else torch.float64  # MPS has no float64
        self._weights = None if weights is None else weights.to(self._exact)
        self._covered = torch.zeros_like(gram.diagonal)
        self._gains = torch.zeros_like(gram.diagonal, dtype=self._exact)
        self._lose(self._covered, torch.full_like(self._covered, torch.inf))
        self._gains.neg_()

    def scores(self) -> torch.Tensor:
        """(B, N) gains of covering."""
        gains = torch.where(self._gains > UNCOVERED, self._gains, 0.0)
        return gains if self._weights is None else gains.mul_(self._weights)

    def take(self, picks: torch.Tensor, scores: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        covered = torch.maximum(self._covered, self._gram.columns(picks))
        self._lose(self._covered, covered)
        self._covered = covered

    def _lose(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Take from every gain what covering from ``before`` to ``after``, (B, N) each, leaves less of."""
        whole = self._gram.whole
        if whole is not None and whole.device.type != "cpu":  # all of them, so that the host need not know how many
            lost = torch.minimum(whole, after[..., None]) - torch.minimum(whole, before[..., None])
            self._gains -= lost.sum(1, dtype=self._exact)
            return
        better = (after > before).flatten().nonzero()[:, 0]
        for tokens in torch.split(better, queries_at_a_time(before.device, before.shape[1])):
            rows = self._gram.rows(tokens)
            low, high = (values.flatten().index_select(0, tokens)[:, None] for values in (before, after))
            lost = torch.minimum(rows, high).sub_(torch.minimum(rows, low)).to(self._exact)
            if len(before) == 1:
                self._gains -= lost.sum(0)
            else:
                self._gains.index_add_(0, tokens // before.shape[1], lost, alpha=-1)
