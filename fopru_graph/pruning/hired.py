"""HiRED's budgets (arXiv 2408.10945): a picture's budget shared out over its overview and the tiles it was cut into."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch

from fopru_graph.pruning.groups import share_out
from fopru_graph.pruning.select import SLACK, kept_count, on_grid, tile_groups
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
    scores, images, positions = significance.scores, significance.images, significance.tile_positions
    groups = tile_groups(len(scores), "stitched", images, positions)
    whole = {image: tile for tile, image in enumerate(images) if positions[tile] is None}
    cut = {whole.get(images[bands[0][0]], -1): bands for bands in groups if positions[bands[0][0]] is not None}
    overviews = [tile for tile in cut if tile >= 0]
    budgets = dict(enumerate(kept_count(len(tile), ratio, tokens) for tile in scores))
    # The host must know the budgets: it waits once, for all overviews.
    seen = torch.cat([scores[tile] for tile in overviews]).cpu() if overviews else torch.zeros(0)
    for first, best in zip(overviews, torch.split(seen, [len(scores[tile]) for tile in overviews]), strict=True):
        tiles, room = list(chain.from_iterable(cut[first])), len(best)
        rooms = torch.tensor([len(scores[tile]) for tile in tiles])
        total = kept_count(room + int(rooms.sum()), ratio, tokens)
        budgets[first] = max(min(int(total * overview + SLACK), room), total - int(rooms.sum()))
        hits = _hits(best, significance.grids, first, cut[first], int((1 - overview) * room + SLACK))
        budgets |= zip(tiles, share_out(total - budgets[first], hits, rooms).tolist(), strict=True)
    return tuple(budgets.values())


def _hits(
    scores: torch.Tensor, grids: Sequence[tuple[int, int]], whole: int, bands: Sequence[Sequence[int]], top: int
) -> torch.Tensor:
    """What share of an overview's ``top`` best tokens lies in each tile's part of the picture, times a constant: (T,).

    A tile covers as much of the picture as it has rows and columns among all ``bands`` of tiles: those of padding are
    none. Of tokens that are as good as the last of the best each counts the same part. ``scores`` are the overview's,
    tile ``whole``.
    """
    sides = [grids[band[0]][0] for band in bands], [grids[tile][1] for tile in bands[0]]
    down, across = map(_covering, grids[whole], sides)
    limit = scores.sort(descending=True).values[max(0, top - 1)]
    above, equal = (scores > limit).float(), (scores == limit).float()
    # Whole numbers, so that equal tiles weigh exactly the same.
    return (down.T @ on_grid(above * equal.sum() + equal * (top - above.sum()), grids[whole]) @ across).flatten()


def _covering(length: int, parts: Sequence[int]) -> torch.Tensor:
    """(length, parts) float32, 0 or 1: which of the parts, laid end to end over ``length`` tokens, has their centre."""
    ends = torch.tensor([0, *accumulate(parts)]) * 2 * length
    centres = (2 * torch.arange(length)[:, None] + 1) * sum(parts)
    return ((ends[:-1] <= centres) & (centres < ends[1:])).float()
