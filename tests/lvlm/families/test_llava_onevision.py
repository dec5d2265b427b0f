"""LLaVA-OneVision: tiles, shrinking, whole pictures and videos as stock has them, and what pruning leaves of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.nodes.vision_encode import VisionEncode
from fopru_graph.pruning.attention import pool_scores
from fopru_graph.storage import TensorCodec
from fopru_graph.values import ModelHandle, Selection, Video
from tests import tiny
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import ZOO
from tests.lvlm.zoo.llava_onevision import build, inputs

SIZES = {"tile": (50, 50), "two": (112, 56), "grid": (112, 112), "odd": (97, 80), "tall": (31, 150), "flat": (300, 20)}
RATIOS = ("anyres_max_1", "anyres_max_2", "anyres_max_9")


def pictures(*sizes):
    return [tiny.image(i, *SIZES[size]) for i, size in enumerate(sizes)]


def video(seed, frames=3, size=(60, 40)):
    return Video(tuple(tiny.image(seed + i, *size).picture for i in range(frames)), f"video-{seed}")


def stock_rows(family, images):
    """The rows that the stock model makes of the pictures, one tensor an image."""
    return family.model.model.get_image_features(**inputs(family, images)).pooler_output


def stock_count(family, image):
    """The number of placeholders that the stock processor writes: its own method, on an object without a tokenizer."""
    processor = object.__new__(LlavaOnevisionProcessor)
    processor.image_processor, processor.image_token = family.processor.image_processor, "<image>"
    processor.num_image_tokens, processor.vision_feature_select_strategy = family._side**2, "full"
    processor.vision_aspect_ratio = family.model.config.vision_aspect_ratio
    batch = family.processor.image_processor([image.picture], return_tensors="pt")
    return processor.replace_image_token(batch, 0).count("<image>")


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_rows_and_placeholders_are_stocks(size, ratio):
    family = build(ratio=ratio)
    images = pictures(size)
    tokens = family.project(family.encode(images), None)
    (expected,) = stock_rows(family, images)
    assert tokens.embeddings[0].shape == expected.shape
    assert (tokens.embeddings[0] - expected).abs().max() < 1e-5
    text = build_prompt(family, ["what?"], tokens)
    assert text.visual_counts == tokens.encoded
    assert tokens.encoded[0] + len(tokens.newlines[0]) == stock_count(family, images[0]) == len(expected)
    assert len(tokens.newlines[0]) == family.newlines(images)


def samples(size, scale):
    """Where bilinear shrinking looks, by its definition."""
    return [(i + 0.5) * size / scale - 0.5 for i in range(scale)]


@torch.inference_mode()
def test_a_mixed_token_belongs_to_the_tile_under_its_centre():
    family = build(ratio="anyres_max_2")
    features = family.encode(pictures("grid"))
    origin = family.project(features, None).origin[0].tolist()
    assert origin[:16] == [[0, i] for i in range(16)]  # the overview is not shrunk
    near = [round(place) for place in samples(8, 5)]  # 8 × 8 over √(64 / 32)
    numbers = [0] * 5
    for y in near:
        for x in near:
            tile = 1 + y // 4 * 2 + x // 4
            assert origin[16 + near.index(y) * 6 + near.index(x)][0] == tile
            numbers[tile] += 1
    assert features.counts == (16, *numbers[1:]) and sum(numbers) == 25
    assert [i for i, place in enumerate(origin[16:]) if place[0] < 0] == [5, 11, 17, 23, 29]


@torch.inference_mode()
def test_a_mixed_token_is_scored_by_the_patches_of_its_tile():
    family = build(ratio="anyres_max_2")
    features = family.encode(pictures("grid"))
    values = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    places = samples(8, 5)
    for tile in features.tiles[1:]:
        top, left = (4 * place for place in tile.tile_position)
        rows, columns = ([p - first for p in places if 0 <= round(p) - first < 4] for first in (top, left))
        assert tile.grid == (len(rows), len(columns))
        expected = [mixture(values, y, x) for y in rows for x in columns]
        used = tile.attention.query.shape[1] - tile.attention.prefix  # patches that no token mixes in are left out
        patches = [
            (y, x)
            for y in range(4)
            for x in range(4)
            if any(share(y, a) for a in rows) and any(share(x, a) for a in columns)
        ]
        assert used == len(patches)
        found = pool_scores(
            values[tuple(zip(*patches, strict=True))], tile.attention.patch_groups, tile.attention.weights
        )
        assert torch.allclose(found, torch.stack(expected), atol=1e-5)


def share(cell, place):
    """The share of a cell in a bilinear sample at a place on one axis."""
    return max(0.0, 1 - abs(cell - place))


def mixture(values, y, x):
    """A bilinear sample of the cells (4, 4), those beyond them left out."""
    weights = torch.tensor([[share(i, y) * share(j, x) for j in range(4)] for i in range(4)])
    return (values * weights).sum() / weights.sum()


@torch.inference_mode()
def test_without_shrinking_rows_are_projected_patches():
    family = build(ratio="anyres_max_9")
    features = family.encode(pictures("odd", "tall"))
    tokens = family.project(features, None)
    for rows, origin in zip(tokens.embeddings, tokens.origin, strict=True):
        for row, (tile, index) in zip(rows, origin.tolist(), strict=True):
            feature = features.tiles[max(tile, 0)].features[index]
            expected = family.model.model.image_newline if tile < 0 else family.projector(feature)
            assert torch.allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("ratio", ["anyres_max_2", "anyres_max_9"])
@torch.inference_mode()
def test_what_is_kept_is_what_was_chosen_and_has_a_row(ratio):
    family = build(ratio=ratio)
    features = family.encode(pictures("grid", "tall"))
    whole = family.project(features, None)
    selection = Reorder()(selection=RankPrune()(significance=Significance()(features=features), ratio=0.3))
    wanted = {(tile, int(index)) for tile, chosen in enumerate(selection.indices) for index in chosen}
    tokens = family.project(features, selection)
    for all_origin, origin in zip(whole.origin, tokens.origin, strict=True):
        all_places, places = ([tuple(p) for p in one.tolist() if p[0] >= 0] for one in (all_origin, origin))
        assert places == [place for place in all_places if place in wanted]
        assert 0 < len(places) < len(all_places)


@torch.inference_mode()
def test_the_last_layer_is_read_before_the_tower_normalises_it():
    family = build()
    images = pictures("two")
    tower = family.tower
    pixels = family.processor.image_processor([images[0].picture], return_tensors="pt")["pixel_values"][0]
    output = tower(pixels, output_hidden_states=True)
    features = family.encode(images)
    for tile, state, normed in zip(features.tiles, output.hidden_states[-1], output.last_hidden_state, strict=True):
        assert torch.allclose(tile.features, state, atol=1e-5)
        assert not torch.allclose(tile.features, normed, atol=1e-2)


@pytest.mark.parametrize("kind", ["picture", "video"])
@torch.inference_mode()
def test_scores_are_the_eager_attention_weights(kind):
    family, eager = build("sdpa", size=70), build("eager", size=70)
    given = [video(0)] if kind == "video" else pictures("two")
    features = family.encode(given)
    noted = []
    hook = eager.tower_layers[-1].self_attn.register_forward_hook(lambda _m, _i, out: noted.append(out[1]))
    eager.tower(torch.stack(features.pixels))
    hook.remove()
    scores = Significance()(features=features, direction="received").scores
    assert len(scores) == len(features.tiles) == len(noted[0])
    for score, weights in zip(scores, noted[0], strict=True):
        expected = weights.mean(0).mean(0)
        if kind == "video":  # pooled as features are
            expected = eager.model.model.apply_pooling(expected.view(1, -1, 1)).flatten()
            assert len(score) == 9
        assert torch.allclose(score, expected, atol=1e-6)


@torch.inference_mode()
def test_several_pictures_of_one_prompt_are_whole():
    family = build()
    images = pictures("grid", "flat", "tile")
    handle = ModelHandle("x", family)
    features = VisionEncode()(model=handle, image=images, together=True)
    batch = family.processor.image_processor([[image.picture for image in images]], return_tensors="pt")
    assert batch["batch_num_images"].tolist() == [3]
    core = family.model.model
    expected = core.get_image_features(
        batch["pixel_values"], batch["image_sizes"], batch_num_images=batch["batch_num_images"]
    ).pooler_output
    tokens = family.project(features, None)
    for rows, own in zip(tokens.embeddings, expected, strict=True):
        assert rows.shape == own.shape == (17, 64)  # a tile and a newline
        assert (rows - own).abs().max() < 1e-5
    prompts = ["<image><image><image>which?"]
    prompt = build_prompt(family, prompts, tokens)
    stock = family.model.generate(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        **batch,
        max_new_tokens=STEPS,
        do_sample=False,
    )
    assert list(run(family, tokens, prompts)[0].token_ids[0]) == stock[0, prompt.input_ids.shape[1] :].tolist()
    selection = RankPrune()(significance=Significance()(features=features), ratio=0.25)
    assert [len(rows) for rows in family.project(features, selection).embeddings] == [5, 5, 5]


@torch.inference_mode()
def test_a_lone_picture_is_cut_into_tiles_also_when_it_is_said_to_be_all():
    family = build()
    alone, said = (
        VisionEncode()(model=ModelHandle("x", family), image=pictures("grid"), together=together)
        for together in (False, True)
    )
    assert len(alone.tiles) == len(said.tiles) == 5
    apart = VisionEncode()(model=ModelHandle("x", family), image=pictures("grid", "grid"))
    assert len(apart.tiles) == 10


def frames_by_hand(family, one):
    """What the stock video processor does to a video: every frame resized to a tile and normalised."""
    size = family.processor.image_processor.size["height"]
    resized = [frame.resize((size, size), 3) for frame in one.frames]  # 3: bicubic
    return torch.stack([torch.from_numpy(np.array(frame)).permute(2, 0, 1) / 255 for frame in resized]) * 2 - 1


@pytest.mark.parametrize("size", [56, 70])  # an even number of patches is pooled in blocks, an odd one is not
@torch.inference_mode()
def test_a_video_is_stocks(size):
    family = build(size=size)
    videos = [video(0), video(10, size=(40, 90))]
    features = family.encode(videos)
    side = (size // 14 + 1) // 2
    assert [tile.grid for tile in features.tiles] == [(side, side)] * 6
    assert [tile.image for tile in features.tiles] == [0, 0, 0, 1, 1, 1]
    pixels = torch.stack([frames_by_hand(family, one) for one in videos])
    assert (torch.stack(features.pixels) - pixels.flatten(0, 1)).abs().max() < 1e-5
    tokens = family.project(features, None)
    expected = family.model.model.get_video_features(pixels).pooler_output
    assert torch.stack(tokens.embeddings).shape == expected.shape == (2, 3 * side * side + 1, 64)
    assert (torch.stack(tokens.embeddings) - expected).abs().max() < 1e-5
    prompts = ["what?", "and what happens here?"]
    prompt = build_prompt(family, prompts, tokens)
    ids = prompt.input_ids.masked_fill(prompt.input_ids == family.image_token_id, family.model.config.video_token_id)
    output = family.model.generate(
        input_ids=ids,
        attention_mask=prompt.attention_mask,
        pixel_values_videos=pixels,
        max_new_tokens=STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    generation, logits = run(family, tokens, prompts, [fastv(2, 1.0)])
    stock = torch.stack(output.logits, 1)
    assert (logits - stock).abs().max() < 1e-4
    assert [list(one) for one in generation.token_ids] == output.sequences[:, ids.shape[1] :].tolist()


@torch.inference_mode()
def test_a_frames_units_are_what_the_pooling_mixes():
    family = build(size=70)
    attention = family.encode([video(0)]).tiles[0].attention
    values = torch.randn(25, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values.view(1, 1, 5, 5), size=(3, 3), mode="bilinear").flatten()
    assert attention.patch_groups.shape == attention.weights.shape == (9, 4)
    assert torch.allclose((values[attention.patch_groups] * attention.weights).sum(1), expected, atol=1e-6)
    assert torch.allclose(attention.weights.sum(1), torch.ones(9))


@torch.inference_mode()
def test_a_video_is_pruned_by_frame_or_over_all_frames():
    family = build()
    features = family.encode([video(0, 5), video(20, 5)])
    found = Significance()(features=features)
    assert found.images == (0,) * 5 + (1,) * 5
    whole = family.project(features, None)
    for over in ("tile", "image"):
        selection = Reorder()(selection=RankPrune()(significance=found, ratio=0.5, over=over))
        tokens = family.project(features, selection)
        assert [len(rows) for rows in tokens.embeddings] == [11, 11] and tokens.encoded == (20, 20)
        counts = [len(chosen) for chosen in selection.indices]
        assert (counts == [2] * 10) == (over == "tile")
        for i in range(2):
            known = {tuple(p): row for p, row in zip(whole.origin[i].tolist(), whole.embeddings[i], strict=True)}
            for place, row in zip(tokens.origin[i].tolist(), tokens.embeddings[i], strict=True):
                assert torch.equal(row, known[tuple(place)])
            assert tokens.origin[i][-1].tolist() == [-1, -1]
        generation = generate(family, tokens, ["a", "b"], [fastv(2, 0.5)], max_new_tokens=2)
        assert generation.projected == 20 and generation.visual_per_layer[-1] == 10
    one = family.project(features, RankPrune()(significance=found, tokens=1, over="image"))
    assert [len(rows) for rows in one.embeddings] == [2, 2]


def test_what_it_does_not_take_is_refused():
    family = build()
    for encode in (family.encode, family.encode_together):
        with pytest.raises(UserError, match="together"):
            encode([video(0), *pictures("tile")])
        with pytest.raises(UserError, match="no image"):
            encode([])
    features = family.encode([video(0)])
    with pytest.raises(UserError, match="selection"):
        family.project(features, Selection((torch.zeros(1, dtype=torch.long),), (16,)))


def test_a_saved_folder_gives_the_same_answer(tmp_path):
    family = build()
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.chat_template = family.processor.chat_template
    family.processor.tokenizer.save_pretrained(tmp_path)
    opened = load_model(str(tmp_path), device="cpu").family
    for given in (pictures("odd", "grid"), [video(0), video(5)]):
        answers = []
        for one in (family, opened):
            features = one.encode(given)
            chosen = RankPrune()(significance=Significance()(features=features), ratio=0.5, over="image")
            answers.append(run(one, one.project(features, chosen), ["what?", "and here?"], [fastv(2, 0.5)]))
        assert answers[0][0].token_ids == answers[1][0].token_ids
        assert torch.equal(answers[0][1], answers[1][1])


def test_a_pipeline_answers_about_a_video(tmp_path):
    row = ZOO["llava_onevision"].build("sdpa")
    row.model.save_pretrained(tmp_path / "m")
    row.processor.image_processor.save_pretrained(tmp_path / "m")
    row.processor.tokenizer.save_pretrained(tmp_path / "m")
    frames = [tiny.image(i).picture for i in range(6)]
    frames[0].save(tmp_path / "v.png", save_all=True, append_images=frames[1:])
    graph = Graph("x")
    model, clip = graph.LoadModel(name=str(tmp_path / "m")), graph.LoadVideo(path=str(tmp_path / "v.png"), frames=4)
    features = graph.VisionEncode(model=model, image=clip)
    found = graph.Significance(features=features)
    chosen = graph.Reorder(selection=graph.RankPrune(significance=found, ratio=0.5, over="image"))
    tokens = graph.Project(model=model, features=features, selection=chosen)
    said = graph.LLMGenerate(model=model, tokens=tokens, prompt="what happens?", max_new_tokens=3)
    picture = graph.ShowKept(features=features, generation=said.generation, selection=chosen, significance=found)
    graph.output("generation", said.generation)
    graph.output("picture", picture)
    result = graph.run(out=tmp_path / "out")
    assert (result["generation"].encoded, result["generation"].projected) == (16, 8)
    assert (tmp_path / "out" / "kept.png").is_file()


@torch.inference_mode()
def test_the_disk_cache_keeps_a_video(tmp_path):
    family = build(size=70)
    features = family.encode([video(0)])
    TensorCodec().dump(features, tmp_path)
    again = TensorCodec().load(tmp_path)
    before, after = (Significance()(features=one).scores for one in (features, again))
    assert all(map(torch.equal, before, after))
    assert torch.equal(family.project(features, None).embeddings[0], family.project(again, None).embeddings[0])
