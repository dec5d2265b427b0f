"""Where tiles stand in the picture they were cut from: by their content, whatever the model says."""

from __future__ import annotations

import PIL.Image
import pytest

from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Image
from tests.lvlm.zoo import ZOO

CUT = ("llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm")


def quadrants(width, height):
    """Black at the left, white at the right; red on top, none below."""
    picture = PIL.Image.new("RGB", (width, height))
    for box, colour in (
        ((0, 0, width // 2, height // 2), (255, 0, 0)),
        ((width // 2, 0, width, height // 2), (255, 255, 255)),
        ((width // 2, height // 2, width, height), (0, 255, 255)),
    ):
        picture.paste(colour, box)
    return Image(picture, "quadrants")


@pytest.mark.parametrize("name", CUT)
def test_tiles_stand_where_their_pixels_were(name):
    features = ZOO[name].build("sdpa").encode([quadrants(448, 448)])
    placed = {
        tile.tile_position: features.seen(i).float().mean((0, 1))
        for i, tile in enumerate(features.tiles)
        if tile.tile_position
    }
    assert len(placed) >= 4 and any(tile.tile_position is None for tile in features.tiles)
    rows, columns = (max(place[axis] for place in placed) for axis in (0, 1))
    assert set(placed) == {(row, column) for row in range(rows + 1) for column in range(columns + 1)}
    assert placed[0, 0][0] > placed[rows, 0][0] + 50  # red is on top
    assert placed[rows, columns][2] > placed[rows, 0][2] + 50  # blue is at the right
    assert placed[0, columns][1] > placed[0, 0][1] + 50


@pytest.mark.parametrize("name", CUT)
def test_stitched_rows_are_the_same_in_tiles_beside_each_other(name):
    features = ZOO[name].build("sdpa").encode([quadrants(448, 448)])
    selection = RowPrune()(significance=Significance()(features=features), ratio=0.4, over="stitched")
    bands = {}
    for tile, indices in zip(features.tiles, selection.indices, strict=True):
        if tile.tile_position is not None:
            bands.setdefault(tile.tile_position[0], set()).add(tuple((indices // tile.grid[1]).unique().tolist()))
    assert len(bands) >= 2 and all(len(kept) == 1 for kept in bands.values())


@pytest.mark.parametrize("name", sorted(set(ZOO) - set(CUT)))
def test_other_families_cut_nothing(name):
    features = ZOO[name].build("sdpa").encode([quadrants(224, 224)])
    assert [tile.tile_position for tile in features.tiles] == [None]
