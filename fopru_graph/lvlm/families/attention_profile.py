"""Attention of every layer of the vision encoder (FoPru §3 and Fig. 1): which visual tokens it is concentrated on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fopru_graph.lvlm.families.capture_qk import TapCallback, tap_attention
from fopru_graph.lvlm.families.family import Family
from fopru_graph.pruning.attention import attention_means, pool_scores
from fopru_graph.values import Image, Tile, VisionFeatures


@dataclass(frozen=True, eq=False)
class AttentionProfile:
    """The attention that each visual token of one tile receives, layer by layer.

    ``received`` holds an (N,) float32 tensor a layer of the tower, s₂ of Eq. 3; None where the layer is not run or sees
    the tile in windows only. ``grid`` is the tile's (h, w) with h·w = N, ``read_layer`` the layer whose attention
    scores tokens when they are pruned.
    """

    received: tuple[torch.Tensor | None, ...]
    grid: tuple[int, int]
    read_layer: int


@torch.inference_mode()
def attention_profile(family: Family, image: Image) -> AttentionProfile:
    """The attention received by each visual token in every layer, for the first tile that shows the whole picture.

    That is the picture itself, or the overview where a picture is also cut into tiles. The stock tower runs a second
    time, to its end: encoding may stop at the layer that is read. Each layer's attention is reduced as it comes.

    Raises:
        UserError: the picture cannot be encoded.
    """
    with family.lock:
        with _tower_calls(family.tower) as calls:
            features = family.encode([image])
        number, tile = _whole(features)
        layers = range(len(family.tower_layers))
        received: list[torch.Tensor | None] = [None] * len(layers)
        with contextlib.ExitStack() as taps:
            for layer in layers:
                reduce = _reducing(received, layer, tile, number)
                taps.enter_context(tap_attention(family.attention_module(layer), reduce))
            for given, named in tuple(calls):
                family.tower(*given, **named)
    return AttentionProfile(tuple(received), tile.grid, family.scored_layer)


@contextlib.contextmanager
def _tower_calls(tower: Any) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """A list that every call of the tower inside the block adds its arguments to."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = tower.register_forward_pre_hook(lambda _m, given, named: calls.append((given, named)), with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def _whole(features: VisionFeatures) -> tuple[int, Tile]:
    """The first tile that is no part of a picture, with its number; the first of all where each is a part."""
    whole = (found for found in enumerate(features.tiles) if found[1].tile_position is None)
    return next(whole, (0, features.tiles[0]))


def _reducing(received: list[torch.Tensor | None], layer: int, tile: Tile, number: int) -> TapCallback:
    """A callback that sets a layer's received attention from the one call that sees all of the tile."""
    noted = tile.attention
    tokens = noted.query.shape[1]

    def reduce(query: torch.Tensor, key: torch.Tensor, scale: float, _mask: Any) -> None:
        # (T, H, P + M, d) with all tiles in one call; towers that run one picture after the other give one tile a call.
        if query.shape[2] == tokens and number < len(query):
            _, mean = attention_means(query[number], key[number], scale, noted.prefix)
            received[layer] = pool_scores(mean, noted.patch_groups, noted.weights)

    return reduce
