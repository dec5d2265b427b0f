"""Inner products of many tokens for greedy loops: a column at a time, held as a whole only where that is small."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.pruning.similarity import product_blocks

WHOLE = 1 << 24  # inner products in memory at once, over all tiles of a batch: 4096² float32 are 64 MiB
COLUMNS_A_GRAM = 12  # measured: products of all pairs cost as much as the columns of a twelfth of the tokens


class Gram:
    """The inner products X Xᵀ of each tile's tokens.

    All are made at once where they fit and many columns will be asked for, otherwise a column when it is needed.

    Args:
        vectors: X (B, N, C) float32 of B tiles with equally many tokens.
        columns: how many columns will be asked for.
    """

    def __init__(self, vectors: torch.Tensor, columns: int) -> None:
        self.vectors = vectors
        self.batch = torch.arange(len(vectors), device=vectors.device)
        tokens = vectors.shape[1]
        self._offsets = self.batch * tokens  # of each tile in the tiles end to end
        fits = len(vectors) * tokens**2 <= WHOLE and columns * COLUMNS_A_GRAM >= tokens
        self.whole = self._pairs() if fits else None  # (B, N, N)
        self.diagonal = self._diagonal()  # (B, N)

    def columns(self, picks: torch.Tensor) -> torch.Tensor:
        """(B, N): the products of all tokens with the pick of their tile; ``picks`` (B,) int64."""
        if self.whole is not None:
            return self.whole.flatten(0, 1).index_select(0, picks + self._offsets)
        return self._products(self.vectors[self.batch, picks])

    def rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, N): the products of n tokens with all of their tile; (n,) int64, numbered through all tiles."""
        if self.whole is not None:
            return self.whole.flatten(0, 1).index_select(0, tokens)
        chosen = self.vectors.flatten(0, 1).index_select(0, tokens)
        if len(self.vectors) == 1:
            return chosen @ self.vectors[0].T
        return (self.vectors[tokens // self.vectors.shape[1]] @ chosen[..., None])[..., 0]

    def isolation(self) -> torch.Tensor:
        """(B, N): each token's squared distance to the nearest other token of its tile; ∞ where there is no other."""
        half, nearest = self.diagonal[:, None] / 2, torch.empty_like(self.diagonal)
        for block, products in self._blocks():
            products = products - half
            products.diagonal(block.start, -2, -1).fill_(-torch.inf)
            nearest[:, block] = products.amax(-1)  # results kept between the blocks would pin the memory of each
        return self.diagonal - 2 * nearest

    def _blocks(self) -> Iterable[tuple[slice, torch.Tensor]]:
        """All products, some rows of all tiles at a time, not to be written into."""
        if self.whole is None:
            return product_blocks(self.vectors, self.vectors)
        step = queries_at_a_time(self.whole.device, self.diagonal.numel())
        starts = range(0, self.whole.shape[1], step)
        return ((slice(start, start + step), self.whole[:, start : start + step]) for start in starts)

    def _products(self, directions: torch.Tensor) -> torch.Tensor:
        """(B, N): all tokens times one vector (B, C) for each tile."""
        return (self.vectors @ directions[..., None])[..., 0]

    def _diagonal(self) -> torch.Tensor:
        if self.whole is not None:
            return self.whole.diagonal(dim1=-2, dim2=-1)
        return self.vectors.square().sum(-1)

    def _pairs(self) -> torch.Tensor:
        return _all_pairs(self.vectors)


class SquaredGram(Gram):
    """I + weight · G², where G is the Gram matrix of the vectors: what OTPrune takes the determinant of."""

    def __init__(self, vectors: torch.Tensor, columns: int, weight: float) -> None:
        self._weight = weight
        super().__init__(vectors, columns)

    def columns(self, picks: torch.Tensor) -> torch.Tensor:
        """As in `Gram`."""
        if self.whole is not None:
            return super().columns(picks)
        column = self._weight * self._products((self.vectors.mT @ super().columns(picks)[..., None])[..., 0])
        return column.scatter_add(1, picks[:, None], torch.ones_like(column[:, :1]))

    def _pairs(self) -> torch.Tensor:
        whole = self._weight * _all_pairs(_all_pairs(self.vectors))
        whole.diagonal(dim1=-2, dim2=-1).add_(1.0)
        return whole

    def _diagonal(self) -> torch.Tensor:
        if self.whole is not None:
            return super()._diagonal()
        squares = [products.square().sum(-1) for _, products in product_blocks(self.vectors, self.vectors)]
        return 1.0 + self._weight * torch.cat(squares, -1)


def _all_pairs(vectors: torch.Tensor) -> torch.Tensor:
    """(B, N, N): all inner products of (B, N, C); those below the diagonal are copies of those above it."""
    tiles, tokens, _ = vectors.shape
    pairs = vectors.new_empty(tiles, tokens, tokens)
    step = max(64, tokens // 8)
    for start in range(0, tokens, step):
        block = vectors[:, start : start + step] @ vectors[:, start:].mT
        square = block[
            ..., :step
        ]  # on the diagonal, where a product of matrices need not be symmetric to the last digit
        square.copy_(square.triu() + square.triu(1).mT)
        pairs[:, start : start + step, start:] = block
        pairs[:, start:, start : start + step] = block.mT
    return pairs
