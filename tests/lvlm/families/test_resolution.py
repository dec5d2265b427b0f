"""Pictures encoded with a share of their pixels: fewer visual tokens, of which every figure is true."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fopru_graph.lvlm.families.llava import shrink_pixels
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.nodes.downsample import Downsample
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from tests import tiny
from tests.lvlm.test_invariants import fastv, run
from tests.lvlm.zoo import ZOO

# Families whose first picture, with 30 % of its pixels, gets fewer tokens by their own rule; others keep their number.
FEWER = {"internvl", "mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"}


def down(image, ratio):
    return Downsample()(image=image, ratio=ratio)


def test_the_node_multiplies_and_takes_lists():
    image = tiny.image()
    half = down(image, 0.5)
    assert (image.resolution, half.resolution, down(half, 0.5).resolution) == (1.0, 0.5, 0.25)
    assert half.picture is image.picture and half.source == image.source
    assert [one.resolution for one in down([image, half], 0.5)] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("ratio", "side"), [(1.0, 6), (0.9, 5), (0.5, 4), (0.25, 3), (1 / 9, 2), (0.02, 1), (0.001, 1)]
)
def test_llava_sees_so_many_patches(ratio, side):
    family = tiny.llava(grid=(6, 6), seed=1)
    features = family.encode([down(tiny.image(), ratio)])
    tile = features.tiles[0]
    assert tile.grid == (side, side) and features.counts == (side * side,) and tile.features.shape == (side * side, 32)
    assert features.pixels[0].shape == (3, 8 * side, 8 * side)
    assert tile.attention.key.shape[1] == side * side + 1 and tile.prefix_features.shape == (1, 32)
    assert features.report()["tile_tokens"] == [side * side] and features.image_sizes == (tiny.image().shape,)
    generation, _ = run(family, family.project(features, None), ["x"], [fastv(2, 0.5)])
    assert generation.encoded == generation.projected == side * side
    assert generation.visual_per_layer[-1] == max(1, side * side // 2)


def test_pixels_are_averaged_not_skipped():
    """Antialiased: a fine pattern becomes its mean, where picking pixels would give one of its two colours."""
    stripes = torch.tensor([0.0, 1.0]).repeat(3, 48, 24)
    small = shrink_pixels(stripes, 1 / 9, 8)  # every third pixel has the colours by turns
    assert small.shape == (3, 16, 16) and (small[:, :, 4:-4] - 0.5).abs().max() < 0.05
    assert shrink_pixels(stripes, 1.0, 8) is stripes


@torch.inference_mode()
def test_llavas_features_are_the_stock_towers_with_interpolated_positions():
    family = tiny.llava(grid=(6, 6), seed=2)
    features = family.encode([down(tiny.image(i), ratio) for i, ratio in ((0, 0.25), (1, 0.5))])
    for tile, pixels in zip(features.tiles, features.pixels, strict=True):
        tower = family.model.model.vision_tower
        output = tower(pixels[None], interpolate_pos_encoding=True, output_hidden_states=True)
        assert torch.allclose(tile.features, output.hidden_states[-2][0, 1:], atol=1e-5)
        assert torch.allclose(tile.prefix_features, output.hidden_states[-2][0, :1], atol=1e-5)


def test_pictures_of_several_resolutions_are_encoded_as_each_alone():
    family = tiny.llava(grid=(6, 6), seed=3)
    images = [replace(tiny.image(i), resolution=share) for i, share in enumerate((0.25, 1.0, 0.25, 0.5))]
    together = family.encode(images)
    assert together.counts == (9, 36, 9, 16) and [tile.image for tile in together.tiles] == [0, 1, 2, 3]
    for i, image in enumerate(images):
        alone = family.encode([image])
        assert torch.allclose(together.tiles[i].features, alone.tiles[0].features, atol=1e-5)
        assert torch.allclose(together.tiles[i].attention.query, alone.tiles[0].attention.query, atol=1e-5)
        assert torch.equal(together.pixels[i], alone.pixels[0])
    chosen = RankPrune()(significance=Significance()(features=together), ratio=0.5)
    assert list(map(len, family.project(together, chosen).embeddings)) == [4, 18, 4, 8]


def test_llava_next_cuts_the_smaller_picture():
    family = tiny.llava(anyres=True, seed=4)
    image = tiny.image(0, 64, 64)
    whole, part = family.encode([image]), family.encode([down(image, 0.25)])
    assert len(whole.tiles) == 5 and len(part.tiles) == 3  # a 1 × 2 grid is the smallest that the checkpoint has
    assert part.image_sizes == ((32, 32),)
    by_hand = family.encode([replace(image, picture=image.picture.resize((32, 32), 3))])
    assert all(torch.equal(a.features, b.features) for a, b in zip(part.tiles, by_hand.tiles, strict=True))
    tokens = family.project(part, None)
    assert tokens.encoded == tokens.counts and len(tokens.embeddings[0]) < len(
        family.project(whole, None).embeddings[0]
    )
    mixed = family.encode([down(image, 0.25), image])
    assert [tile.image for tile in mixed.tiles] == [0] * 3 + [1] * 5


@pytest.mark.parametrize("name", [name for name in ZOO if name != "llava"])
def test_other_families_are_given_the_smaller_picture(name):
    row = ZOO[name]
    family = row.build("sdpa")
    image = tiny.image(0, *row.sizes[0])
    small = down(image, 0.3)
    by_hand = shrink(small)
    assert by_hand.resolution == 1 and by_hand.picture.size == tuple(round(s * 0.3**0.5) for s in image.picture.size)
    part, expected = family.encode([small]), family.encode([by_hand])
    assert (
        part.counts == expected.counts and part.image_sizes == expected.image_sizes and part.markup == expected.markup
    )
    assert all(torch.equal(a.features, b.features) for a, b in zip(part.tiles, expected.tiles, strict=True))
    fewer = sum(part.counts) < sum(family.encode([image]).counts)
    assert fewer == (name in FEWER)
    pair = family.encode_together([small, image])
    assert torch.equal(pair.pixels[0], family.encode_together([by_hand, image]).pixels[0])


def test_a_picture_never_vanishes():
    sliver = shrink(replace(tiny.image(0, 200, 1), resolution=0.001))
    assert sliver.picture.size == (6, 1)
