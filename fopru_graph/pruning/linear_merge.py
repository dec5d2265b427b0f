"""Merging and pooling as linear maps: new visual tokens are weighted sums of old ones and replace some of them.

A merged token takes over the index of an old one, so it is packed, numbered and drawn like a selected token.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fopru_graph.values import Tile


def merge_tile(tile: Tile, weights: torch.Tensor, target_indices: torch.Tensor) -> Tile:
    """Apply `linear_merge` to the features of a tile and to its DeepStack features."""
    deepstack = tuple(linear_merge(layer, weights, target_indices) for layer in tile.deepstack)
    return replace(tile, features=linear_merge(tile.features, weights, target_indices), deepstack=deepstack)


def linear_merge(features: torch.Tensor, weights: torch.Tensor, target_indices: torch.Tensor) -> torch.Tensor:
    """A copy of ``features`` with ``weights @ features`` at ``target_indices``; sums are made in float32.

    Args:
        features: (N, D) of any floating type, which the result has too.
        weights: (K, N) float32.
        target_indices: (K,) int64, without repeats.

    Returns:
        (N, D) with K tokens replaced.
    """
    merged = weights.to(features.device) @ features.float()
    return features.index_copy(0, target_indices.to(features.device), merged.to(features.dtype))


def mean_of_members(into: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The weights by which all tokens that go on in the same one are averaged there.

    Args:
        into: (…, N) int64, the token that each goes on in; what is no target, e.g. −1, for one that is lost.
        targets: (…, K) int64, without repeats.

    Returns:
        (…, K, N) float32, rows that sum to one; zeros for a target that nothing goes on in.
    """
    members = (into[..., None, :] == targets[..., None]).float()
    return members / members.sum(-1, keepdim=True).clamp(min=1)
