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

    def take(self, picks: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""


def greedy_select(gain: Gain, count: int, start: torch.Tensor | None = None) -> torch.Tensor:
    """Take ``count`` times the token with the highest gain; of equal ones the lower index.

    Args:
        gain: the rule.
        count: K.
        start: (B, S) int64, S at most K, without repeats: tokens that are taken first.

    Returns:
        (B, K) int64, without repeats, in the order in which they were taken.
    """
    picks = [] if start is None else list(start.unbind(1))
    taken = torch.zeros_like(gain.scores(), dtype=torch.bool)
    for turn in range(count):
        if turn == len(picks):
            picks.append(gain.scores().nan_to_num().masked_fill(taken, -torch.inf).argmax(1))
        taken.scatter_(1, picks[turn][:, None], True)
        gain.take(picks[turn])
    return torch.stack(picks, 1) if picks else taken.new_zeros(len(taken), 0, dtype=torch.int64)


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

    def take(self, picks: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        diagonal = self._gram.diagonal
        distances = diagonal + diagonal.gather(1, picks[:, None]) - 2 * self._gram.columns(picks)
        self._distances = distances if self._distances is None else torch.minimum(self._distances, distances)


class Determinant:
    """The factor by which a token enlarges det K of those that are taken, K = diag(w) G diag(w) (greedy DPP).

    It is what a Cholesky factorisation leaves of the token's diagonal entry. Once the tokens that are taken span a
    token up to rounding, it adds nothing: such tokens come last, the larger diagonal entry first.

    Args:
        gram: G.
        count: how many tokens will be taken at most.
        weights: w (B, N) float32; None for ones.
    """

    def __init__(self, gram: Gram, count: int, weights: torch.Tensor | None = None) -> None:
        self._gram = gram
        self._weights = torch.ones_like(gram.diagonal) if weights is None else weights
        self._whole = gram.diagonal * self._weights.square()
        self.left = self._whole  # (B, N): the squared distance to what is spanned, where all weights are one
        self._rows = self._whole.new_zeros(len(self._whole), count, self._whole.shape[1])  # of the Cholesky factor
        self._taken = 0

    def scores(self) -> torch.Tensor:
        """(B, N) factors of the determinant; negative ones order what adds nothing."""
        return torch.where(self.left > ROUNDING * self._whole, self.left, -1 / (1 + self._whole))

    def take(self, picks: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        column = self._gram.columns(picks) * self._weights * self._weights.gather(1, picks[:, None])
        rows = self._rows[:, : self._taken]
        column = column - (rows[self._gram.batch, :, picks][:, None] @ rows)[:, 0]
        left, whole = (values.gather(1, picks[:, None]) for values in (self.left, self._whole))
        row = torch.where(left > ROUNDING * whole, column * left.rsqrt(), 0.0)
        self._rows[:, self._taken] = row
        self.left = self.left - row.square()
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
        self._lose(self._covered, self._covered.new_full((), torch.inf).expand_as(self._covered))
        self._gains.neg_()

    def scores(self) -> torch.Tensor:
        """(B, N) gains of covering."""
        gains = torch.where(self._gains > UNCOVERED, self._gains, 0.0)
        return gains if self._weights is None else gains * self._weights

    def take(self, picks: torch.Tensor) -> None:
        """Take one more token, (B,) int64, in each tile."""
        covered = torch.maximum(self._covered, self._gram.columns(picks))
        self._lose(self._covered, covered)
        self._covered = covered

    def _lose(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Take from every gain what covering from ``before`` to ``after``, (B, N) each, leaves less of."""
        if self._gram.whole is not None and self._gram.whole.device.type != "cpu":  # whose size the host need not know
            lost = torch.minimum(self._gram.whole, after[..., None]) - torch.minimum(
                self._gram.whole, before[..., None]
            )
            self._gains -= lost.sum(1, dtype=self._exact)
            return
        tiles, tokens = (after > before).nonzero(as_tuple=True)
        step = queries_at_a_time(before.device, before.shape[1])
        for tile, token in zip(torch.split(tiles, step), torch.split(tokens, step), strict=True):
            rows = self._gram.rows(tile, token)
            lost = torch.minimum(rows, after[tile, token, None]) - torch.minimum(rows, before[tile, token, None])
            self._gains.index_add_(0, tile, lost.to(self._exact), alpha=-1)
