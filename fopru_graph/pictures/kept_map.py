"""What was kept of a picture as one picture, and as text for a terminal: a cell for each visual token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fopru_graph.pictures.kept import stack
from fopru_graph.pictures.overlay import draw_mask
from fopru_graph.values import Generation, VisionFeatures

_HALVES = "·▄▀█"  # by 2 · (upper token is kept) + (lower token is kept)
_SHADES = "·░▒▓█"
_EDGE = 560  # pixels along the longer side of the overlay of a tile, or of the grid of tiles

Mask = npt.NDArray[np.bool_]


def final_masks(
    features: VisionFeatures, generation: Generation, areas: Sequence[npt.NDArray[np.int64]] = ()
) -> list[Mask]:
    """For each tile (h, w) bool: the visual tokens that the last decoder layer saw.

    ``areas`` (h·w,) of each tile say which token each was pooled into, see `Selection`: then whole areas are marked.
    """
    kept = np.concatenate([np.zeros((0, 2), np.int64), *(origin.numpy() for origin in generation.kept)])
    masks = []
    for index, tile in enumerate(features.tiles):
        mask = np.zeros(len(tile.features), bool)
        mask[kept[kept[:, 0] == index, 1]] = True
        masks.append((mask[areas[index]] if areas else mask).reshape(tile.grid))
    return masks


def whole_mask(features: VisionFeatures, generation: Generation, areas: Sequence[npt.NDArray[np.int64]] = ()) -> Mask:
    """Of `final_masks` the first of a tile that shows a whole picture, or else the first."""
    whole = [index for index, tile in enumerate(features.tiles) if tile.tile_position is None]
    return final_masks(features, generation, areas)[whole[0] if whole else 0]


def kept_overlay(
    features: VisionFeatures, generation: Generation, areas: Sequence[npt.NDArray[np.int64]] = ()
) -> Image.Image:
    """The picture as the encoder saw it, tokens dimmed that are not left in the last layer.

    Tiles that were cut from a picture lie as in the picture, below those that show all of it.
    """
    positions = [tile.tile_position for tile in features.tiles]
    across = max((position[1] + 1 for position in positions if position is not None), default=1)
    drawn = [
        draw_mask(
            features.seen(i).numpy(),
            tile.grid,
            mask.ravel(),
            _EDGE if position is None else _EDGE // across,
            areas[i] if areas else None,
        )
        for i, (tile, mask, position) in enumerate(
            zip(features.tiles, final_masks(features, generation, areas), positions, strict=True)
        )
    ]
    pictures: list[Image.Image] = []
    rows: dict[tuple[int, int], list[Image.Image]] = {}
    for tile, picture, position in zip(features.tiles, drawn, positions, strict=True):
        if position is None:
            pictures.append(picture)
        else:
            rows.setdefault((tile.image, position[0]), []).append(picture)
    return stack([*pictures, *map(_beside, rows.values())])


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side on white."""
    result = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        result.paste(picture, (left, 0))
        left += picture.width
    return result


def mask_text(mask: Mask, columns: int = 36) -> list[str]:
    """A mask (h, w) as lines of at most ``columns`` characters, two rows of tokens in each.

    A larger grid is pooled: then a character is darker the more of its tokens are kept.
    """
    step = -(-mask.shape[1] // columns)
    height, width = (-(-side // step) * step for side in mask.shape)
    padded = np.zeros((height + height // step % 2 * step, width))
    padded[: mask.shape[0], : mask.shape[1]] = mask
    if step == 1:
        cells = (2 * padded[::2] + padded[1::2]).astype(int)
        return ["".join(_HALVES[cell] for cell in row) for row in cells]
    shares = padded.reshape(padded.shape[0] // (2 * step), 2 * step, width // step, step).mean((1, 3))
    return ["".join(_SHADES[round(share * (len(_SHADES) - 1))] for share in row) for row in shares]
