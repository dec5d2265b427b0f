"""Mistral 3: pictures in their own shape, packed into one row; merging, line ends and markup as stock has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers.image_utils import ChannelDimension
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Selection, Video
from tests import tiny
from tests.lvlm.saved import same_answers_from
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import ZOO, everything, stock_answer
from tests.lvlm.zoo.mistral3 import LONGEST, build

GRIDS = {(64, 64): (4, 4), (65, 64): (4, 5), (180, 80): (3, 6), (40, 90): (6, 3), (1, 17): (2, 1), (96, 1): (1, 6)}


@pytest.fixture(scope="module")
def family():
    return build()


@pytest.mark.parametrize("size", GRIDS)
def test_grids_and_markup_are_stocks(family, size):
    features = family.encode([tiny.image(0, *size)])
    high, wide = GRIDS[size]
    (tile,) = features.tiles
    assert tile.grid == (high, wide) and features.counts == (high * wide,)
    pixels = get_resize_output_image_size(np.empty((3, *size[::-1])), LONGEST, 16, ChannelDimension.FIRST)
    assert features.pixels[0].shape[1:] == pixels
    # The stock processor cannot be imported without torchvision; this is its rule, read from its source.
    written = (["<image>"] * wide + ["[IMG_BREAK]"]) * high
    written[-1] = "[IMG_END]"
    assert features.markup == ("".join(written),)


@pytest.mark.parametrize("merge", [1, 2, 3])
def test_a_visual_token_is_made_of_the_patches_that_the_model_merges(merge):
    family = build(merge=merge)
    merger = family.projector.patch_merger
    grids = [(2, 4), (3, 1)]
    sizes = [(high * merge * 8, wide * merge * 8) for high, wide in grids]
    numbers = torch.cat([torch.arange(high * wide * merge**2) for high, wide in grids]).float()[:, None]
    merger.merging_layer = torch.nn.Identity()
    merged = merger(numbers, sizes).long().split([high * wide for high, wide in grids])
    for grid, stock in zip(grids, merged, strict=True):
        units = family.patch_groups(grid)
        assert units.shape == (grid[0] * grid[1], merge**2) == (len(units), family.patches)
        assert [sorted(unit) for unit in units.tolist()] == [sorted(unit) for unit in stock.tolist()]


@pytest.mark.parametrize(("named", "layer"), [(-1, 3), (-3, 1), (2, 1), (4, 3)])
@torch.inference_mode()
def test_scores_come_from_each_pictures_own_part_of_the_layer_that_is_read(named, layer):
    family = build("eager", vision_feature_layer=named)
    features = family.encode([tiny.image(i, *size) for i, size in enumerate(list(GRIDS)[1:4])])
    scores = Significance()(features=features, direction="received")
    for tile, pixels, score in zip(features.tiles, features.pixels, scores.scores, strict=True):
        alone = family.tower(pixels[None], output_attentions=True, output_hidden_states=True)
        seen, noted = alone.attentions[layer][0].mean(0), tile.attention
        ours = (noted.query @ noted.key.transpose(1, 2) * noted.scale).softmax(-1).mean(0)
        assert torch.allclose(ours, seen, atol=1e-5)
        assert torch.allclose(score, seen.mean(0)[noted.patch_groups].mean(1), atol=1e-5)
        read = alone.hidden_states[layer + 1][0]
        rows = family.projector(read, [pixels.shape[1:]])
        assert torch.allclose(rows, tile.features, atol=1e-4)


@pytest.mark.parametrize("named", [0, 5, -5, [-1, -2]])
def test_a_layer_that_is_not_there_is_refused(named):
    with pytest.raises(UserError, match="vision_feature_layer"):
        build(vision_feature_layer=named).encode([tiny.image(0)])


@pytest.mark.parametrize("size", [{"longest_edge": LONGEST}, {"height": LONGEST, "width": LONGEST}])
def test_a_picture_too_narrow_to_be_shrunk_is_refused(size):
    family = build()
    family.processor.image_processor.size = transformers.PixtralImageProcessorPil(size=size).size
    for width, height in ((LONGEST + 1, 1), (2, 3 * LONGEST)):
        with pytest.raises(ValueError, match="."):
            family.processor.image_processor(tiny.image(0, width, height).picture)
        with pytest.raises(UserError, match=f"{width} × {height} pixels is too narrow"):
            family.encode([tiny.image(0), tiny.image(0, width, height)])
    assert family.encode([tiny.image(0, 2, 2 * LONGEST)]).tiles[0].grid == (6, 1)


def test_a_picture_of_one_visual_token_is_refused_where_stock_fails(family):
    inputs = family.prepare([tiny.image(0, 17, 16).picture]).inputs
    single = inputs | {"pixel_values": inputs["pixel_values"][..., :16], "image_sizes": [(16, 16)]}
    with pytest.raises(RuntimeError, match="split"):
        family.model.get_image_features(**single)
    with pytest.raises(UserError, match="16 × 16 pixels is one visual token"):
        family.encode([tiny.image(0, 16, 16)])
    assert family.encode([tiny.image(0, 16, 16), tiny.image(1, 3, 3)]).counts == (1, 1)


@pytest.mark.parametrize(
    ("kept", "written"),
    [
        # Two pictures of 3 × 2 tokens, by their kept ones.
        (([0, 5], [5]), ("<image>[IMG_BREAK]<image>[IMG_END]", "<image>[IMG_END]")),
        (([4], [2, 3, 4]), ("<image>[IMG_END]", "<image><image>[IMG_BREAK]<image>[IMG_END]")),
        (([1, 2], [0]), ("<image>[IMG_BREAK]<image>[IMG_BREAK][IMG_END]", "<image>[IMG_BREAK][IMG_END]")),
    ],
)
def test_a_rows_break_goes_when_the_row_has_no_token_left(family, kept, written):
    features = family.encode([tiny.image(0, 32, 48), tiny.image(1, 32, 48)])
    assert features.counts == (6, 6)
    selection = Selection(tuple(map(torch.tensor, kept)), features.counts)
    prompt = build_prompt(family, ["<image> <image> say [IMG_BREAK]"], family.project(features, selection))
    text = family.processor.tokenizer.decode(prompt.input_ids[0])
    assert text == f"<s>[INST]{' '.join(written)} say [IMG_BREAK][/INST]"


@pytest.mark.parametrize("text", ["MistralConfig", "Ministral3Config"])
@pytest.mark.parametrize("loop", ["auto", "thin", "segments"])
def test_every_loop_is_the_stock_model(text, loop):
    family = build(text=getattr(transformers, text), seed=94)
    images = [tiny.image(0, 130, 64), tiny.image(1, 30, 30)]
    prompts = ["what?", "a longer question about it"]
    ids, logits = stock_answer(ZOO["mistral3"], family, prompts, images, STEPS)
    tokens = everything(family, images)
    if (text, loop) == ("Ministral3Config", "segments"):
        with pytest.raises(UserError, match="ministral3"):
            run(family, tokens, prompts, loop=loop)
        return
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)], loop=loop)
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


def test_videos_are_refused(family):
    with pytest.raises(UserError, match="takes no videos"):
        family.encode([Video((tiny.image(0).picture,), "v")])


def test_a_saved_folder_gives_the_same_answers(family, tmp_path):
    same_answers_from(tmp_path, family, [tiny.image(0, 130, 64), tiny.image(1, 40, 90)], ["what?", "and here?"])
