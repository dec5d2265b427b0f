"""Tiles and scores for tests of pruning nodes: random, with ties, duplicates and vectors of zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.values import Significance, Tile, TileAttention, VisionFeatures


def random_tiles(
    *grids: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[VisionFeatures, Significance]:
    """Tiles of 6-wide features and two heads of 4-wide keys behind a CLS token; each is an image. Few distinct scores.

    Every fifth token is like the one before it, and every seventh is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    tiles, scores = [], []
    for image, grid in enumerate(grids):
        count = grid[0] * grid[1]
        features, deep = torch.randn(2, count, 6, generator=generator)
        keys = torch.randn(2, 1 + count, 4, generator=generator)
        for vectors in (features, keys[0, 1:], keys[1, 1:]):
            vectors[5::5] = vectors[4:-1:5]
            vectors[6::7] = 0
        attention = TileAttention(keys.to(dtype), keys.to(dtype), 0.5, 1, has_cls=True)
        tiles.append(Tile(features.to(dtype), grid, image, attention, (deep.to(dtype),)))
        scores.append(torch.randint(0, 5, (count,), generator=generator).float())
    features_of_all = VisionFeatures(tuple(tiles), ())
    return features_of_all, Significance.of(features_of_all, scores, "x")


def ranked(scores: torch.Tensor, among: Sequence[int] | None = None) -> list[int]:
    """Indices by falling score, of equal ones the lower first."""
    return sorted(range(len(scores)) if among is None else among, key=lambda i: (-float(scores[i]), i))


def lists(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    return [tensor.tolist() for tensor in tensors]
