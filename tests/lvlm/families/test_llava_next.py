"""LLaVA-1.6: tiles, unpadding and newlines as stock has them, and what pruning leaves of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.pictures.kept import kept_picture
from fopru_graph.values import Selection
from tests import tiny
from tests.lvlm.test_invariants import STEPS, fastv, run

SIZES = {"square": (64, 64), "wide": (90, 30), "tall": (31, 90), "odd": (50, 41), "flat": (200, 20), "one tile": (8, 8)}


def encode(family, *sizes):
    return family.encode([tiny.image(i, *SIZES[size]) for i, size in enumerate(sizes)])


def stock(family, texts, sizes):
    pictures = [tiny.image(i, *SIZES[size]).picture for i, size in enumerate(sizes)]
    inputs = family.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    output = family.model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    return inputs, output.sequences[:, inputs.input_ids.shape[1] :].tolist(), torch.stack(output.logits, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["llama", "mistral"])
@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_without_pruning_it_is_the_stock_model(size, text, loop):
    family = tiny.llava(text, anyres=True, layers=3, seed=1)
    _, ids, logits = stock(family, ["USER: <image>\nwhat? ASSISTANT:"], [size])
    generation, ours = run(family, family.project(encode(family, size), None), ["what?"], [fastv(1, 1.0)], loop=loop)
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4
    assert generation.encoded == generation.projected == generation.visual_per_layer[-1]


def test_a_padded_batch_and_two_images_in_one_prompt_are_stock():
    family = tiny.llava(anyres=True, layers=3, seed=2)
    sizes = ["wide", "square", "tall"]
    texts = ["USER: <image>\nwhat? ASSISTANT:", "USER: <image>\n<image>\nwhich one is it? ASSISTANT:"]
    _, ids, logits = stock(family, texts, sizes)
    prompts = ["<image>\nwhat?", "<image>\n<image>\nwhich one is it?"]
    generation, ours = run(family, family.project(encode(family, *sizes), None), prompts)
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


@torch.inference_mode()
def test_every_row_says_where_it_comes_from():
    family = tiny.llava(anyres=True, seed=3)
    features = encode(family, "square", "odd")
    tokens = family.project(features, None)
    assert [tile.image for tile in features.tiles] == [0] * 5 + [1] * (len(features.tiles) - 5)
    projector, newline = family.model.model.multi_modal_projector, family.model.model.image_newline
    for i, (rows, origin, encoded) in enumerate(zip(tokens.embeddings, tokens.origin, tokens.encoded, strict=True)):
        assert len(rows) == len(origin) == encoded + len(tokens.newlines[i]) and tokens.counts[i] == encoded
        assert (origin[:, 0] < 0).nonzero()[:, 0].tolist() == tokens.newlines[i].tolist()
        assert encoded == sum(len(tile.features) for tile in features.tiles if tile.image == i)
        for row, (tile, index) in zip(rows, origin.tolist(), strict=True):
            expected = newline if tile < 0 else projector(features.tiles[tile].features[index])
            assert torch.allclose(row, expected, atol=1e-5)
    assert tokens.encoded[0] == 16 + 8 * 8  # overview, then eight rows of eight patches
    assert len(tokens.newlines[0]) == 8


def by_hand(origin, kept):
    """What must be left of an image's unpruned rows: row by row of the grid, the slow way."""
    left, line = [], []
    for tile, index in origin.tolist():
        if tile >= 0:
            line.append((tile, index))
            continue
        alive = [place for place in line if place in kept]
        overview = [place for place in alive if place[0] == min(t for t, _ in line)] if not left else []
        left += alive
        if [place for place in alive if place not in overview]:
            left.append((-1, -1))
        line = []
    return left


@pytest.mark.parametrize("ratio", [0.07, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("size", ["square", "wide", "tall", "odd"])
def test_a_newline_stays_with_its_row(size, ratio):
    family = tiny.llava(anyres=True, seed=4)
    features = encode(family, size)
    everything = family.project(features, None)
    selection = Reorder()(selection=RankPrune()(significance=Significance()(features=features), ratio=ratio))
    kept = {(t, int(i)) for t, indices in enumerate(selection.indices) for i in indices}
    tokens = family.project(features, selection)
    assert [tuple(place) for place in tokens.origin[0].tolist()] == by_hand(everything.origin[0], kept)
    rows = {
        tuple(place): row for place, row in zip(everything.origin[0].tolist(), everything.embeddings[0], strict=True)
    }
    for place, row in zip(tokens.origin[0].tolist(), tokens.embeddings[0], strict=True):
        assert torch.allclose(row, rows[tuple(place)], atol=1e-5)
    generation = generate(family, tokens, ["what?"], [fastv(2, 0.5)], max_new_tokens=2)
    newlines = [len(some.newlines[0]) for some in (tokens, everything)]
    assert generation.projected == len(tokens.embeddings[0]) - newlines[0] == sum(map(len, selection.indices))
    assert generation.encoded == len(everything.embeddings[0]) - newlines[1] == sum(features.counts)
    assert generation.visual_per_layer[-1] == max(1, generation.projected // 2)  # newlines are no candidates


def stock_patches(family, size):
    """Which patches of each tile the stock packing of a picture leaves, overview first: the slow way, with marks."""
    picture = tiny.image(0, *SIZES[size])
    pixels = family.processor.image_processor([picture.picture], return_tensors="pt")["pixel_values"][0]
    left = []
    for tile in range(len(pixels)):
        marks = torch.zeros(len(pixels), 16, 1)
        marks[tile, :, 0] = torch.arange(1, 17)
        packed, _ = family.model.model.pack_image_features(
            [marks], [list(picture.shape)], "default", image_newline=torch.zeros(1)
        )
        left.append([int(mark) - 1 for mark in packed[0].flatten() if mark])
    return left


@pytest.mark.parametrize("size", SIZES)
def test_patches_that_packing_deletes_are_no_visual_tokens(size):
    family = tiny.llava(anyres=True, seed=5)
    features, left = encode(family, size), stock_patches(family, size)
    padded = [patches for patches in left if patches]
    assert features.counts == tuple(map(len, padded)) and features.tower_tokens == (17,) * len(left)
    pixels = family.processor.image_processor([tiny.image(0, *SIZES[size]).picture], return_tensors="pt")
    uncut = family._encode_tiles(pixels["pixel_values"][0], [0] * len(left), [(1, 1)], 0.0)
    for tile, patches, whole, area in zip(features.tiles, padded, uncut.tiles, features.pixels, strict=True):
        rows, columns = sorted({p // 4 for p in patches}), sorted({p % 4 for p in patches})
        assert tile.grid == (len(rows), len(columns)) and area.shape == (3, 8 * len(rows), 8 * len(columns))
        assert torch.allclose(tile.features, whole.features[patches], atol=1e-5)
        assert tile.attention.prefix == 1 + 16 - len(patches) == len(tile.prefix_features)
        # The softmax runs over everything; padding neither votes nor is voted for.
        map_ = torch.softmax(whole.attention.query @ whole.attention.key.transpose(1, 2) * whole.attention.scale, -1)
        among = map_.mean(0)[1:, 1:][patches][:, patches]
        scores = Significance()(features=replace(features, tiles=(tile,)), direction="received").scores[0]
        assert torch.allclose(scores, among.mean(0), atol=1e-6)
        paid = ClsAttention()(features=replace(features, tiles=(tile,))).scores[0]
        assert torch.allclose(paid, map_.mean(0)[0, 1:][patches], atol=1e-6)


def test_a_tile_of_nothing_but_padding_is_none():
    family = tiny.llava(anyres=True, seed=5)
    family.model.config.image_grid_pinpoints = family.processor.image_processor.image_grid_pinpoints = [[96, 96]]
    features = family.encode([tiny.image(0, 200, 20)])
    assert [tile.tile_position for tile in features.tiles] == [None, (1, 0), (1, 1), (1, 2)]
    assert len(features.pixels) == 4 and len(features.tower_tokens) == 10
    tokens = family.project(features, RankPrune()(significance=Significance()(features=features), ratio=0.5))
    assert tokens.origin[0][:, 0].unique().tolist() == [-1, 0, 1, 2, 3]
    kept_picture(features)


def test_what_unpadding_removes_is_not_projected():
    family = tiny.llava(anyres=True, seed=5)
    features = encode(family, "flat")
    seen = []
    hook = family.model.model.multi_modal_projector.register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    family.project(features, None)
    hook.remove()
    assert [len(one) for one in seen] == [sum(features.counts)] == [16 + 3 * 8]


def test_the_order_of_a_selection_is_that_of_the_packing():
    family = tiny.llava(anyres=True, seed=6)
    features = encode(family, "square")
    forward = tuple(torch.arange(4) for _ in features.tiles)
    backward = tuple(torch.arange(4).flip(0) for _ in features.tiles)
    a, b = (family.project(features, Selection(chosen, features.counts)) for chosen in (forward, backward))
    assert torch.equal(a.embeddings[0], b.embeddings[0])


@pytest.mark.parametrize("size", ["square", "wide", "tall", "one tile"])
def test_stitched_rows_run_from_edge_to_edge(size):
    family = tiny.llava(anyres=True, seed=7)
    features = encode(family, size)
    places = [tile.tile_position for tile in features.tiles]
    down, across = {"square": (2, 2), "wide": (1, 3), "tall": (3, 1), "one tile": (1, 2)}[size]
    assert places == [None, *((r, c) for r in range(down) for c in range(across))]
    scores = Significance()(features=features)
    selection = RowPrune()(significance=scores, ratio=0.5, over="stitched")
    kept = [{int(i) // 4 for i in indices} for indices in selection.indices]
    assert len(kept[0]) == 2 and all(len(indices) % 4 == 0 for indices in selection.indices)
    bands = [{frozenset(kept[1 + band * across + column]) for column in range(across)} for band in range(down)]
    assert all(len(band) == 1 for band in bands)  # the same rows in all tiles beside each other
    assert sum(len(next(iter(band))) for band in bands) == 2 * down
