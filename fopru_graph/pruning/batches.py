"""Rules for whole tiles or images, run for all of equal shape at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch

from fopru_graph.pruning.gram import WHOLE
from fopru_graph.pruning.select import (
    Over,
    also_finite,
    check_budget,
    group_count,
    group_start,
    split_parts,
    tile_groups,
)
from fopru_graph.values import Budget, Selection, VisionFeatures

T = TypeVar("T")
Choose = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Group:
    """Tiles that share a budget, and what they keep already."""

    tiles: list[int]
    first: torch.Tensor


def choose_in_batches(
    features: VisionFeatures,
    scores: Sequence[torch.Tensor],
    ratio: float | None,
    tokens: int | None,
    over: Over,
    budget: Budget | None,
    start: Selection | None,
    choose: Choose,
) -> Selection:
    """Spend a budget by a rule on each tile, or on all tiles of an image at once.

    Args:
        features: the tiles.
        scores: (N,) of each tile that the rule reads; none for a rule that reads none.
        ratio, tokens, over, budget, start: as for `select.rank_prune`.
        choose: gets the features (B, N, C) of B groups of equal shape, their scores (B, N) or None, what they keep
            already (B, S), and K; returns (B, K) int64, of which the first S are those.

    Raises:
        UserError: as for `select.rank_prune`.
    """
    tiles, counts = features.tiles, features.counts
    check_budget(counts, budget, start)
    alike: dict[tuple[int, ...], list[_Group]] = {}
    for bands in tile_groups(len(tiles), over, [tile.image for tile in tiles]):
        members = list(chain.from_iterable(bands))
        count = group_count(members, counts, ratio, tokens, budget)
        first = group_start(members, counts, start, count).to(tiles[0].features.device)
        size = sum(counts[tile] for tile in members)
        width = tiles[members[0]].features.shape[1]  # LLaVA-OneVision projects the pictures that it shrinks
        alike.setdefault((size, width, count, len(first)), []).append(_Group(members, first))
    kept: dict[int, torch.Tensor] = {}
    for (size, _, count, _), groups in alike.items():
        at_once = max(1, WHOLE // size**2)
        for batch in (groups[i : i + at_once] for i in range(0, len(groups), at_once)):
            vectors = _stacked([tile.features for tile in tiles], batch)
            read = _stacked(scores, batch).to(vectors.device) if scores else None
            picks = choose(vectors, read, torch.stack([group.first for group in batch]), count)
            for group, chosen in zip(batch, picks, strict=True):
                kept |= zip(group.tiles, split_parts(chosen, [counts[tile] for tile in group.tiles]), strict=True)
    sums = torch.stack([values.float().sum() for values in (*(tile.features for tile in tiles), *scores)])
    finite = also_finite(sums.isfinite().all(), start)
    return Selection(tuple(kept[tile] for tile in range(len(tiles))), counts, finite)


def each_in_batches(parts: Sequence[torch.Tensor], rule: Callable[[torch.Tensor], Iterable[T]]) -> list[T]:
    """What a rule says of each part (N, C); those of equal shape go through it at once, as (B, N, C)."""
    found: dict[int, T] = {}
    for shape in dict.fromkeys(part.shape for part in parts):
        alike = [number for number, part in enumerate(parts) if part.shape == shape]
        found |= zip(alike, rule(torch.stack([parts[number] for number in alike])), strict=True)
    return [found[number] for number in range(len(parts))]


def _stacked(parts: Sequence[torch.Tensor], groups: Sequence[_Group]) -> torch.Tensor:
    """(B, N, …) float32: the parts of each group end to end."""
    return torch.stack([torch.cat([parts[tile] for tile in group.tiles]).float() for group in groups])
