"""The outputs of nodes that make new visual tokens of several old ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fopru_graph import values
from fopru_graph.graph import Outputs

if TYPE_CHECKING:
    import torch


class Mixed(Outputs):
    """Features in which the selected tokens are mixtures, and that selection; wire Project to both."""

    features: values.VisionFeatures
    selection: values.Selection


def mixed_tiles(features: values.VisionFeatures, maps: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Mixed:
    """Apply one map a tile: weights (K, N) and the places (K,) of what they make."""
    from fopru_graph.pruning.linear_merge import mix_tile

    tiles = tuple(mix_tile(tile, *one) for tile, one in zip(features.tiles, maps, strict=True))
    selection = values.Selection(tuple(places for _, places in maps), features.counts)
    return Mixed(features=features.with_tiles(tiles), selection=selection)
