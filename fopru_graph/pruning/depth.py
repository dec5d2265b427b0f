"""Layers named by number or by their share of the depth, so that a pipeline serves models of any depth."""

from __future__ import annotations

import math

from fopru_graph.errors import UserError


def layer_at(layer: int | float, depth: int) -> int:
    """The number of a layer, from 0: an integer as it is, a share in (0, 1) that part of ``depth`` layers, rounded.

    Half a layer is rounded up, and the last layer is the largest. Example: ``layer_at(0.25, 32)`` is 8.

    Raises:
        UserError: a share lies outside (0, 1).
    """
    if isinstance(layer, int):
        return layer
    if not 0 < layer < 1:
        raise UserError(f"layer {layer:g} is no share of the depth", "write a whole number, or a share in (0, 1)")
    return min(depth - 1, math.floor(layer * depth + 0.5))
