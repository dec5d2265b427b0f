"""Tiles whose patches are not all visual tokens: the model deletes those of padding after encoding."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch

from fopru_graph.lvlm.families.modules import copy_to
from fopru_graph.values import Tile

SeenTile: TypeAlias = tuple[Tile, torch.Tensor]  # a tile and its pixels (3, H, W)


def only_patches(tile: Tile, pixels: torch.Tensor, patches: torch.Tensor) -> SeenTile:
    """A tile whose visual tokens are some of its patches; all others join CLS among the tokens before them.

    So the softmax of an attention map still runs over all tokens that the tower saw, while scores, means and merges
    know those that are left. The pixels are cut to the patches' area.

    Args:
        tile: a tile of M patches, of which all are visual tokens.
        pixels: (3, H, W) of the tile.
        patches: (N,) int64 the patches that are left, ascending: some rows of the grid, and of each the same columns.
    """
    count, (height, width) = len(tile.features), tile.grid
    if len(patches) == count:
        return tile, pixels
    rows, columns = (patches // width).unique(), (patches % width).unique()
    device, attention = tile.features.device, tile.attention
    others = torch.ones(count, dtype=torch.bool).index_fill(0, patches, False).nonzero()[:, 0]
    deleted, kept = copy_to(others, device), copy_to(patches, device)
    before = torch.arange(attention.prefix, device=device)
    order = torch.cat([before, attention.prefix + deleted, attention.prefix + kept])
    prefix_features = tile.prefix_features
    if prefix_features is not None:
        prefix_features = torch.cat([prefix_features, tile.features[deleted]])
    cut = replace(
        tile,
        features=tile.features[kept],
        grid=(len(rows), len(columns)),
        prefix_features=prefix_features,
        attention=attention.changed(
            lambda each: replace(
                each, query=each.query[:, order], key=each.key[:, order], prefix=each.prefix + len(deleted)
            )
        ),
    )
    down, across = pixels.shape[-2] // height, pixels.shape[-1] // width
    top, left = int(rows[0]) * down, int(columns[0]) * across
    return cut, pixels[:, top : (int(rows[-1]) + 1) * down, left : (int(columns[-1]) + 1) * across]
