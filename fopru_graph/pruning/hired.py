"""HiRED's budgets (arXiv 2408.10945): a picture's budget shared out over its overview and the tiles it was cut into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning.groups import share_out
from fopru_graph.pruning.select import kept_count, tile_groups
from fopru_graph.values import Significance


def hired_budgets(
    significance: Significance, ratio: float | None, tokens: int | None = None, overview: float = 0.5
) -> tuple[int, ...]:
    """How many tokens each tile keeps, so that every picture keeps B = `kept_count` of all its tokens.

    The overview keeps ⌊B · overview⌋, the tiles share the rest in proportion to the ⌊(1 − overview) · N⌋ best of the
    overview's N tokens that lie where the tile does; see `share_out`. No tile keeps more than it has. Of a picture
    without an overview or without tiles, and of a video, each tile keeps its own `kept_count`.

    Args:
        significance: scores of all tiles; only those of overviews count.
        ratio: share kept of a picture's tokens.
        tokens: number kept of a picture's tokens; wins over ``ratio``.
        overview: share of a picture's budget that its overview gets, in [0, 1].

    Raises:
        UserError: the scores do not say which picture their tiles are of, or where; or the budget is out of bounds.
    """
    positions, numbers = significance.tile_positions, list(map(len, significance.scores))
    if len(positions) != len(numbers):
        raise UserError("the scores do not say where tiles stand", "let the scorer set Significance.tile_positions")
    budgets = [kept_count(number, ratio, tokens) for number in numbers]
    shared: list[int] = []
    shares: list[torch.Tensor] = []
    for bands in tile_groups(len(numbers), "image", significance.images):
        whole = [tile for (tile,) in bands if positions[tile] is None]
        placed = sorted((place, tile) for (tile,) in bands if (place := positions[tile]) is not None)
        tiles = [tile for _, tile in placed]
        if len(whole) != 1 or not tiles:
            continue
        room, rooms = numbers[whole[0]], [numbers[tile] for tile in tiles]
        total = kept_count(room + sum(rooms), ratio, tokens)
        first = budgets[whole[0]] = max(min(_floor(total * overview), room), total - sum(rooms))
        hits = _hits(significance, whole[0], tiles, _floor((1 - overview) * room))
        shares.append(share_out(total - first, hits, torch.tensor(rooms, device=hits.device)))
        shared += tiles
    if shares:
        for tile, count in zip(shared, torch.cat(shares).tolist(), strict=True):  # the one wait
            budgets[tile] = count
    return tuple(budgets)


def _floor(number: float) -> int:
    """As `kept_count` floors: 0.29 · 100 is 29."""
    return math.floor(number + 1e-6)


def _hits(significance: Significance, whole: int, tiles: Sequence[int], top: int) -> torch.Tensor:
    """How many of an overview's ``top`` best tokens lie in each tile's part of the picture, (T,) float32.

    Of tokens that are as good as the last of these each counts the same part. A tile covers as much of the picture as
    it has rows and columns among all tiles, so that padding counts nothing. ``tiles`` go row by row.
    """
    scores, (high, wide) = significance.scores[whole], significance.grids[whole]
    places = {significance.tile_positions[tile]: significance.grids[tile] for tile in tiles}
    heights = {place[0]: grid[0] for place, grid in places.items() if place}
    widths = {place[1]: grid[1] for place, grid in places.items() if place}
    down = _covering(high, list(heights.values()), scores.device)
    across = _covering(wide, list(widths.values()), scores.device)
    limit = scores.sort(descending=True).values[max(0, top - 1)]
    above, equal = (scores > limit).float(), (scores == limit).float()
    counted = above + equal * (top - above.sum()) / equal.sum()
    tile = (down[:, None] * len(widths) + across).flatten()
    return torch.zeros(len(tiles), device=scores.device).index_add(0, tile, counted)


def _covering(length: int, parts: Sequence[int], device: torch.device) -> torch.Tensor:
    """(length,) int64: in which of the parts, laid end to end over ``length`` tokens, each token's centre lies."""
    ends = torch.tensor([*accumulate(parts)], device=device)
    centres = (2 * torch.arange(length, device=device) + 1) * sum(parts)
    return torch.bucketize(centres, 2 * length * ends[:-1], right=True)
