"""The outputs of nodes that merge visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.errors import UserError
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


def merge_selected(
    features: values.VisionFeatures,
    selection: values.Selection,
    rule: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    *given: Iterable[Any],
) -> Merged:
    """`merge_tiles` by a rule that makes a tile's map of the tile, its kept tokens (K,), and what is given for it."""
    if features.counts != selection.counts:
        raise UserError("features and selection were made from different tokens", "wire them to the same VisionEncode")
    tiles = zip(features.tiles, selection.indices, *given, strict=True)
    maps = [rule(tile, kept.to(tile.features.device), *of_tile) for tile, kept, *of_tile in tiles]
    return merge_tiles(features, maps, selection)
