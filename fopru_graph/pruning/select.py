"""Which visual tokens are kept: the budget, and FoPru's rank strategy (paper §4.3, Algorithm 1).

The paper spends the ratio in each tile. Two wider scopes are our extension; ``over`` names the scope:

* ``tile``: each tile spends its own budget;
* ``image``: all tiles of an image, or all frames of a video, share one budget;
* ``stitched``: rows run through the whole picture, across tiles that stand side by side (row strategy only).

Scores of different tiles are compared as they are. FoPru's score is a mean over the tile's own attention map, so a tile
that the tower sees with fewer tokens has larger scores; the tiles of one image have equally many in all families,
except at edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.values import Budget, Selection, Significance, VisionFeatures

Over = Literal["tile", "image", "stitched"]

# 0.29 · 100 is 28.999… in binary; a hair above the product keeps floor() at what the user wrote.
SLACK = 1e-6


def kept_count(available: int, ratio: float | None = None, tokens: int | None = None) -> int:
    """How many of ``available`` tokens (or rows) a budget keeps: ⌊available · ratio⌋, or ``tokens``.

    At least 1 and at most ``available`` are kept; 0 available stay 0. ``tokens`` wins over ``ratio``. The floor is that
    of Algorithm 1's slice ``[: N × r%]``. Example: ``kept_count(576, 0.25)`` is 144.

    Raises:
        UserError: neither is given, ``ratio`` is outside (0, 1] or ``tokens`` is below 1.
    """
    if tokens is not None:
        if tokens < 1:
            raise UserError(f"tokens must be at least 1, not {tokens}", "it is the number of visual tokens to keep")
        return min(available, tokens)
    if ratio is None:
        raise UserError("no budget: neither ratio nor tokens is set", "set ratio (share kept) or tokens (number kept)")
    if not 0 < ratio <= 1:
        raise UserError(f"ratio must be in (0, 1], not {ratio}", "it is the share of visual tokens to keep")
    return min(available, max(1, math.floor(available * ratio + SLACK)))


def rank_select(scores: torch.Tensor, ratio: float | None = None, tokens: int | None = None) -> torch.Tensor:
    """Indices of the highest scores of one tile (Algorithm 1 line 7).

    Args:
        scores: (N,) significance.
        ratio: share kept, K = max(1, ⌊N · ratio⌋).
        tokens: K itself; wins over ``ratio``.

    Returns:
        (K,) int64 indices in descending order of score; of equal scores the lower index comes first.

    Raises:
        UserError: the budget is missing or out of bounds (see `kept_count`).
    """
    return torch.argsort(scores, descending=True, stable=True)[: kept_count(len(scores), ratio, tokens)]


def reorder(indices: torch.Tensor) -> torch.Tensor:
    """Sort kept indices (K,) ascending, which restores their raster order (paper §4.4, Algorithm 1 line 14)."""
    return indices.sort().values


def on_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """A number (N,) of each token of a tile as (h, w).

    Raises:
        UserError: the grid does not hold N tokens.
    """
    if grid[0] * grid[1] != len(tokens):
        raise UserError(
            f"a {grid[0]} × {grid[1]} grid has no room for {len(tokens)} scores", "pass the tile's own grid"
        )
    return tokens.view(grid)


def tile_groups(
    tiles: int, over: Over, images: Sequence[int] = (), positions: Sequence[tuple[int, int] | None] = ()
) -> list[list[list[int]]]:
    """Group the tiles that share a budget. A group is a list of bands, a band a list of tiles that share rows.

    Example: an image has an overview (tile 0) and 2 × 2 tiles. Its groups are ``[[0]], [[1]], …`` over ``tile``,
    ``[[0], [1], [2], [3], [4]]`` over ``image``, and ``[[0]], [[1, 2], [3, 4]]`` over ``stitched``.

    Args:
        tiles: T, the number of tiles.
        over: the scope.
        images: (T,) image of each tile; ``image`` and ``stitched`` need it.
        positions: (T,) position (row, column) of each tile in its picture, None for an overview or a frame, which then
            is a group by itself; ``stitched`` needs it.

    Raises:
        UserError: ``over`` is unknown, or the scope lacks the ``images`` or ``positions`` that it needs.
    """
    if over not in ("tile", "image", "stitched"):
        raise UserError(f"over {over!r} is unknown", "choose tile or image")
    if over != "tile" and len(images) != tiles:
        raise UserError(
            f"the scores do not say which image each of {tiles} tiles is of",
            "choose over: tile, or let the scorer set Significance.images",
        )
    if over == "stitched" and len(positions) != tiles:
        raise UserError(
            f"rows cannot be stitched: nothing says where each of {tiles} tiles stands in its picture",
            "choose over: tile or image, or let the scorer set Significance.tile_positions",
        )
    groups: dict[tuple[str, int], dict[int, list[int]]] = {}
    for tile in range(tiles):
        position = positions[tile] if over == "stitched" else None
        if position is not None:
            group, band = ("picture", images[tile]), position[0]
        elif over == "image":
            group, band = ("image", images[tile]), tile
        else:
            group, band = ("tile", tile), 0
        groups.setdefault(group, {}).setdefault(band, []).append(tile)
    return [[bands[band] for band in sorted(bands)] for bands in groups.values()]


def rank_prune(
    significance: Significance,
    ratio: float | None,
    tokens: int | None,
    over: Over = "tile",
    budget: Budget | None = None,
    start: Selection | None = None,
) -> Selection:
    """Spend a budget on all tiles by `rank_select`; of equal scores in a group those of the earlier tile come first.

    A tile may keep no token where several share the budget. Tokens of ``start`` are kept already: they come first and
    count in the budget, which the best of the others fill up. ``budget`` wins over ``ratio`` and ``tokens``; over an
    image it is the sum of its tiles' budgets.

    Raises:
        UserError: ``budget`` or ``start`` are of other tiles, or the budget is missing or out of bounds.
    """
    scores = significance.scores
    lengths = [len(tile) for tile in scores]
    check_budget(lengths, budget, start)
    kept: dict[int, torch.Tensor] = {}
    for bands in tile_groups(len(scores), over, significance.images):
        group = list(chain.from_iterable(bands))
        count = group_count(group, lengths, ratio, tokens, budget)
        ranked = torch.cat([scores[tile] for tile in group])
        first = group_start(group, lengths, start, count).to(ranked.device)
        ranked = ranked.index_fill(0, first, -torch.inf)
        best = torch.cat([first, ranked.argsort(descending=True, stable=True)[: count - len(first)]])
        kept |= zip(group, split_parts(best, [lengths[tile] for tile in group]), strict=True)
    return selection_of([kept[tile] for tile in range(len(scores))], significance, start)


def group_count(
    group: Sequence[int], lengths: Sequence[int], ratio: float | None, tokens: int | None, budget: Budget | None
) -> int:
    """How many tokens the tiles of a group keep together: those of ``budget``, or else `kept_count`."""
    available = sum(lengths[tile] for tile in group)
    if budget is not None:
        return min(available, sum(budget.counts[tile] for tile in group))
    return kept_count(available, ratio, tokens)


def group_start(group: Sequence[int], lengths: Sequence[int], start: Selection | None, count: int) -> torch.Tensor:
    """(≤ ``count``,) int64: the tokens that a group keeps already, numbered through its tiles laid end to end."""
    if start is None:
        return torch.zeros(0, dtype=torch.int64)
    offsets = accumulate((lengths[tile] for tile in group), initial=0)
    return torch.cat([start.indices[tile] + offset for tile, offset in zip(group, offsets, strict=False)])[:count]


def check_budget(lengths: Sequence[int], budget: Budget | None, start: Selection | None) -> None:
    """Refuse a budget or a beginning that was made for other tiles than those of ``lengths`` tokens.

    Raises:
        UserError: so it was.
    """
    if budget is not None and len(budget.counts) != len(lengths):
        raise UserError(
            f"the budget is for {len(budget.counts)} tiles, the scores are of {len(lengths)}",
            "wire Budget and the scorer to the same VisionEncode",
        )
    if start is not None and start.counts != tuple(lengths):
        raise UserError(
            f"the tokens kept already are of {start.counts}, the scores of {tuple(lengths)}",
            "wire both pruning nodes to the same VisionEncode",
        )


def check_tokens(features: VisionFeatures, significance: Significance) -> None:
    """Refuse scores that were made for other tokens than ``features``.

    Raises:
        UserError: so they were.
    """
    if features.counts != tuple(map(len, significance.scores)):
        raise UserError(
            "features and significance were made from different tokens", "wire them to the same VisionEncode"
        )


def kept_counts(
    lengths: Sequence[int], ratio: float | None, tokens: int | None, budget: Budget | None
) -> tuple[int, ...]:
    """What each tile of ``lengths`` tokens keeps: ``budget``, or else its `kept_count`.

    Raises:
        UserError: the budget is of other tiles, missing or out of bounds.
    """
    check_budget(lengths, budget, None)
    if budget is None:
        return tuple(kept_count(length, ratio, tokens) for length in lengths)
    return tuple(map(min, lengths, budget.counts))


def tile_budgets(counts: Sequence[int], ratio: float | None, tokens: int | None, share: float) -> tuple[Budget, Budget]:
    """What each tile of ``counts`` tokens keeps, see `kept_count`, and ``share`` of it, rounded."""
    whole = [kept_count(count, ratio, tokens) for count in counts]
    return Budget(tuple(whole)), Budget(tuple(math.floor(share * count + 0.5) for count in whole))


def selection_of(
    indices: Sequence[torch.Tensor], significance: Significance, start: Selection | None = None
) -> Selection:
    """The selection of ``indices``, one (K,) tensor per tile, that was made by ``significance`` and from ``start``."""
    finite = also_finite(torch.cat(list(significance.scores)).isfinite().all(), start)
    return Selection(tuple(indices), tuple(map(len, significance.scores)), finite)


def also_finite(finite: torch.Tensor, start: Selection | None) -> torch.Tensor:
    """() bool: ``finite``, and that the scores of ``start`` are so, if it was made by any."""
    if start is None or start.scores_finite is None:
        return finite
    return finite & start.scores_finite.to(finite.device)


def split_parts(chosen: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Turn indices into parts laid end to end into indices into each part, in the order in which they came."""
    if len(lengths) == 1:  # nothing to split, and the host need not wait for the device to learn how many there are
        return [chosen]
    starts = [sum(lengths[:part]) for part in range(len(lengths))]
    part_of = sum(((chosen >= start).long() for start in starts[1:]), torch.zeros_like(chosen))
    counts = torch.stack([(part_of == part).sum() for part in range(len(lengths))]).tolist()  # the one wait
    parts = torch.split(chosen[part_of.argsort(stable=True)], counts)
    return [indices - start for indices, start in zip(parts, starts, strict=True)]
