"""Attention of every layer of the vision encoder (FoPru §3 and Fig. 1): which visual tokens it is concentrated on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fopru_graph.lvlm.families.capture_qk import Attention, CaptureCallback, capture_qk
from fopru_graph.lvlm.families.family import Family
from fopru_graph.pruning.attention import attention_means, pool_scores
from fopru_graph.values import Image, Tile, VisionFeatures


@dataclass(frozen=True, eq=False)
class AttentionProfile:
    """The attention that each visual token of one tile receives, layer by layer.

    For each layer of the tower, ``received`` holds an (N,) float32 tensor, s₂ of FoPru's Eq. 3; None if the layer does
    not run or sees the tile in windows only. ``grid`` is the tile's (h, w) with h·w = N, ``read_layer`` the layer whose
    attention scores visual tokens when they are pruned.
    """

    received: tuple[torch.Tensor | None, ...]
    grid: tuple[int, int]
    read_layer: int


@torch.inference_mode()
def attention_profile(family: Family, image: Image) -> AttentionProfile:
    """The attention received by each visual token in every layer, for the first tile that shows the whole picture.

    That tile is the picture itself, or the overview if the picture is also cut into tiles. The stock tower runs a
    second time, to its end, because encoding may stop earlier. Each layer's attention is reduced at once.

    Raises:
        UserError: the picture cannot be encoded.
    """
    with family.lock:
        with _recorded_calls(family.tower) as calls:
            features = family.encode([image])
        index, tile = _whole_picture_tile(features)
        layers = range(len(family.tower_layers))
        received: list[torch.Tensor | None] = [None] * len(layers)
        with contextlib.ExitStack() as captures:
            for layer in layers:
                reduce = _reducer(received, layer, tile, index)
                captures.enter_context(capture_qk(family.attention_module(layer), reduce))
            for args, kwargs in tuple(calls):
                family.tower(*args, **kwargs)
    return AttentionProfile(tuple(received), tile.grid, family.scored_layer)


@contextlib.contextmanager
def _recorded_calls(tower: Any) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """A list to which every call of the tower inside the block adds its arguments."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = tower.register_forward_pre_hook(lambda _m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def _whole_picture_tile(features: VisionFeatures) -> tuple[int, Tile]:
    """The first tile that is no part of a picture, with its index; the first tile if each is a part."""
    whole = ((index, tile) for index, tile in enumerate(features.tiles) if tile.tile_position is None)
    return next(whole, (0, features.tiles[0]))


def _reducer(received: list[torch.Tensor | None], layer: int, tile: Tile, index: int) -> CaptureCallback:
    """A callback that sets ``received[layer]`` from the only call that sees all of the tile."""
    attention = tile.attention
    tokens = attention.query.shape[1]

    def reduce(call: Attention) -> None:
        query, key = call.query, call.key
        # One call has all tiles, (T, H, P + M, d); towers that run picture by picture make one call per tile.
        if query.shape[2] == tokens and index < len(query):
            _, mean = attention_means(query[index], key[index], call.scale, attention.prefix)
            received[layer] = pool_scores(mean, attention.patch_groups, attention.weights)

    return reduce
