"""Merging and pooling as what they are: linear maps on a tile's visual tokens, put where some of these stood.

What comes out has the places of tokens that were there before, so it is packed, numbered and drawn like a selection.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fopru_graph.values import Tile


def mix_tile(tile: Tile, weights: torch.Tensor, places: torch.Tensor) -> Tile:
    """A tile whose tokens at ``places`` (K,) are ``weights`` (K, N) times all of its tokens, `deep` ones likewise."""
    deep = tuple(mixed(layer, weights, places) for layer in tile.deepstack)
    return replace(tile, features=mixed(tile.features, weights, places), deepstack=deep)


def mixed(rows: torch.Tensor, weights: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """A copy of ``rows`` (N, D) with ``weights @ rows`` at ``places``; the sums are made in float32.

    Args:
        rows: (N, D) of any floating type, which the result has too.
        weights: (K, N) float32.
        places: (K,) int64, without repeats.
    """
    made = weights.to(rows.device) @ rows.float()
    return rows.index_copy(0, places.to(rows.device), made.to(rows.dtype))
