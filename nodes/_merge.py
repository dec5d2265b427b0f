"""The outputs of nodes that merge visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fopru_graph import values
from fopru_graph.graph import Outputs

if TYPE_CHECKING:
    import torch


class Merged(Outputs):
    """Features in which merged tokens replace the selected ones, and that selection; wire Project to both."""

    features: values.VisionFeatures
    selection: values.Selection


def merge_tiles(
    features: values.VisionFeatures,
    maps: Sequence[tuple[torch.Tensor, torch.Tensor]],
    kept: values.Selection | None = None,
    pooled: bool = False,
) -> Merged:
    """Merge the tokens of each tile by its map: weights (K, N) and the indices (K,) that merged tokens take over.

    ``kept`` is the selection that the maps follow from, if they do: whether its scores are finite holds for the merged.
    ``pooled``: every token goes into a merged one, so that each of these stands for an area.
    """
    from fopru_graph.pruning.linear_merge import merge_tile

    tiles = tuple(merge_tile(tile, *tile_map) for tile, tile_map in zip(features.tiles, maps, strict=True))
    finite = None if kept is None else kept.scores_finite
    areas = tuple(target_indices.to(weights.device)[weights.argmax(0)] for weights, target_indices in maps if pooled)
    selection = values.Selection(tuple(target_indices for _, target_indices in maps), features.counts, finite, areas)
    return Merged(features=features.with_tiles(tiles), selection=selection)
