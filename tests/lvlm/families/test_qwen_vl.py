"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: windows, positions, DeepStack and pairs of frames as stock has them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.chat import chat_text
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.storage import TensorCodec
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding
from tests.lvlm.saved import same_answers_from
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import everything
from tests.lvlm.zoo.qwen_vl import BUILD, PATCH, qwen3, qwen25

PROCESSORS = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}
GRIDS = {  # (h, w) in tokens of 28 × 28 pixels; at least four of them and at most sixty
    (112, 112): (4, 4),
    (150, 60): (2, 5),
    (60, 150): (5, 2),
    (90, 70): (2, 3),
    (1, 1): (2, 2),
    (600, 400): (6, 9),
    (3, 600): (29, 1),
}


def video(seed, frames=4, size=(70, 90)):
    return Video(tuple(tiny.image(seed + i, *size).picture for i in range(frames)), f"video-{seed}")


def pictures(*sizes):
    return [tiny.image(i, *size) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module", params=BUILD)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return BUILD[name]()


def kept(family, given, ratio, over="tile"):
    """Visual tokens pruned by rank."""
    features = family.encode(given)
    selection = RankPrune()(significance=Significance()(features=features), ratio=ratio, over=over)
    return family.project(features, Reorder()(selection=selection))


def stock_processor(name, family):
    """The stock processor's own methods, on an object without the parts that ask for torchvision."""
    processor = object.__new__(PROCESSORS[name])
    processor.image_token, processor.video_token = "<image>", "<|video_pad|>"
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    processor.image_processor = family.processor.image_processor
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    return processor


def written(family, prompt, sample=0):
    return family.processor.tokenizer.decode(prompt.input_ids[sample][-prompt.lengths[sample] :])


@pytest.mark.parametrize("size", GRIDS)
def test_pictures_of_every_size_are_written_as_stock_writes_them(name, family, size):
    image = tiny.image(0, *size)
    features = family.encode([image])
    (tile,) = features.tiles
    assert tile.grid == GRIDS[size] and len(tile.features) == tile.grid[0] * tile.grid[1]
    stock = family.processor.image_processor
    assert stock.get_number_of_image_patches(size[1], size[0]) == 4 * len(tile.features)
    processor = stock_processor(name, family)
    batch = stock([image.picture], return_tensors="pt")
    expanded = processor.replace_image_token(batch, 0)
    assert features.markup == (expanded,)
    text, _ = processor.get_text_with_replacements([chat_text(family, "what?", 1)], images_replacements=[expanded])
    prompt = build_prompt(family, ["what?"], everything(family, [image]))
    assert written(family, prompt).removeprefix("<s>") == text[0] and text[0].count("<|vision_start|><image>") == 1


def test_what_the_tower_saw_is_the_picture(family):
    image = tiny.image(0, 150, 60)
    seen = family.encode([image]).seen(0).int()
    resized = torch.from_numpy(np.array(image.picture.resize((140, 56), 3))).int()
    assert seen.shape == resized.shape == (56, 140, 3) and (seen - resized).abs().max() <= 1


def test_in_windows_a_tokens_patches_are_where_its_window_put_them():
    """3 × 3 tokens in windows of 2 × 2: first 0 1 3 4, then 2 5, then 6 7, then 8."""
    first = {0: 0, 1: 4, 3: 8, 4: 12, 2: 16, 5: 20, 6: 24, 7: 28, 8: 32}
    assert qwen25().patch_groups((3, 3)).tolist() == [[first[token] + i for i in range(4)] for token in range(9)]


@torch.inference_mode()
def test_merging_a_units_patches_gives_its_token(family):
    images = pictures((112, 112), (150, 60), (90, 70))
    features = family.encode(images)
    inputs = family.prepare([image.picture for image in images]).inputs
    states = family.tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).last_hidden_state
    own = states.split([4 * len(tile.features) for tile in features.tiles])
    for tile, patches in zip(features.tiles, own, strict=True):
        merged = family.tower.merger(patches[tile.attention.patch_groups.flatten()])
        assert torch.allclose(merged, tile.features, atol=1e-5)


@pytest.mark.parametrize("kind", ["pictures", "video"])
@torch.inference_mode()
def test_scores_are_the_eager_attention_weights_over_the_whole_tile(name, family, kind, monkeypatch):
    eager = BUILD[name]("eager")
    layer = eager.tower_layers[2 if name == "qwen2_5_vl" else 3].attn  # the last one that has no windows
    assert eager.attention_module(eager.scored_layer) is layer
    modeling = sys.modules[type(layer).__module__]
    stock, noted = modeling.eager_attention_forward, []

    def note(module, *args, **options):
        output, weights = stock(module, *args, **options)
        if module is layer:
            noted.append(weights[0].mean(0))
        return output, weights

    given = [video(0, 4), video(9, 3, (112, 60))] if kind == "video" else pictures((112, 112), (150, 60), (90, 70))
    scores = Significance()(features=family.encode(given), direction="received").scores
    monkeypatch.setattr(modeling, "eager_attention_forward", note)
    prepare = eager.prepare_videos if kind == "video" else eager.prepare
    prepared = prepare(given if kind == "video" else [one.picture for one in given])
    pixels, grid = prepared.inputs.values()
    eager.tower(pixels, grid_thw=grid)
    assert len(noted) == len(scores) == (4 if kind == "video" else 3)
    for score, weights, (high, wide) in zip(scores, noted, map(family.grid_of, prepared.pixels), strict=True):
        assert weights.shape == (4 * high * wide, 4 * high * wide)
        assert torch.allclose(score, weights.mean(0)[family.patch_groups((high, wide))].mean(1), atol=1e-6)


@torch.inference_mode()
def test_tokens_that_are_left_keep_their_places_in_three_axes(family):
    tokens = kept(family, pictures((112, 112), (150, 60)), 0.3)
    prompt = build_prompt(family, ["a<image>bc<image>d"], tokens)
    assert prompt.positions.shape == (3, 1, prompt.lengths[0])
    begin = (
        written(family, prompt).encode().index(b"a<|vision_start|>") - len("<s><|im_start|>") + 2
    )  # bytes are tokens
    first = begin + 2  # after the letter and <|vision_start|>
    second = first + 4 + 1 + 2 + 1  # the larger side of the first picture, its end, two letters, the second's begin
    rows = torch.cat(tokens.origin).tolist()
    expected = [
        [at, at + index // wide, at + index % wide]
        for (tile, index), (at, wide) in ((row, ((first, 4), (second, 5))[row[0]]) for row in rows)
    ]
    assert prompt.positions[:, 0, prompt.visual[0]].T.tolist() == expected
    after = prompt.positions[:, 0, int(prompt.visual[0].nonzero()[-1]) + 1 :]
    assert torch.equal(after, second + 5 + torch.arange(after.shape[1]).expand(3, -1))


@pytest.mark.parametrize("kind", ["pictures", "video"])
@torch.inference_mode()
def test_pruned_prompts_are_what_stock_makes_of_the_kept_rows(name, family, kind):
    """Stock is given the rows (and DeepStack's) that are left, their ids, and the positions of the whole prompt."""
    given = [video(0, 6), video(9, 3, (112, 60))] if kind == "video" else pictures((112, 112), (150, 60))
    prompts = ["what?", "a longer question about it"]
    features = family.encode(given)
    found = Significance()(features=features)
    selection = Reorder()(selection=RankPrune()(significance=found, ratio=0.4, over="image"))
    tokens = family.project(features, selection)
    whole, prompt = (build_prompt(family, prompts, one) for one in (family.project(features, None), tokens))
    full = stock_positions(family, whole, features, given)
    positions = torch.zeros(3, 2, prompt.input_ids.shape[1], dtype=torch.long)
    for i in range(2):  # the whole prompt without the tokens that were not selected
        keep = whole.attention_mask[i].bool().clone()
        slots = whole.visual[i].nonzero()[:, 0]
        chosen = torch.cat(
            [
                torch.zeros(count, dtype=torch.bool).index_fill(0, selection.indices[t], True)
                for t, count in enumerate(features.counts)
                if features.tiles[t].image == i
            ]
        )
        keep[slots[~chosen]] = False
        positions[:, i, -int(keep.sum()) :] = full[:, i, keep]
    assert torch.equal(prompt.positions, positions)
    text = (prompt.attention_mask.cumsum(-1) - 1).clamp(min=0)
    pooled = [torch.cat([t.features[selection.indices[k]] for k, t in own]) for own in of_images(features)]
    deep = [
        [torch.cat([t.deepstack[layer][selection.indices[k]] for k, t in own]) for own in of_images(features)]
        for layer in range(2 if name == "qwen3_vl" else 0)
    ]
    output = (
        BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=deep)
        if deep
        else BaseModelOutputWithPooling(pooler_output=pooled)
    )
    answer = family.model.generate(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        position_ids=torch.cat([text[None], positions]),
        mm_encoder_outputs={"image": output},
        max_new_tokens=STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    generation, ours = run(family, tokens, prompts)
    assert generation.projected < generation.encoded
    assert (ours - torch.stack(answer.logits, 1)).abs().max() < 1e-4
    assert [list(one) for one in generation.token_ids] == answer.sequences[:, prompt.input_ids.shape[1] :].tolist()


def of_images(features):
    """The numbered tiles of every image."""
    numbered = list(enumerate(features.tiles))
    return [[one for one in numbered if one[1].image == i] for i in range(len(features.image_sizes))]


def stock_positions(family, prompt, features, given):
    """Positions (3, B, L) of a whole prompt by the stock model, pictures as pictures and videos as videos."""
    film = isinstance(given[0], Video)
    grids = [[len(own), *(2 * side for side in own[0][1].grid)] for own in of_images(features)]
    options = {"video_grid_thw" if film else "image_grid_thw": torch.tensor(grids)}
    if film and family.model_type == "qwen2_5_vl":
        options["second_per_grid_ts"] = [2 / 24] * len(given)
    return family.model.model.get_rope_index(
        input_ids=prompt.input_ids,
        mm_token_type_ids=prompt.visual.int() * (2 if film else 1),
        attention_mask=prompt.attention_mask,
        **options,
    )[0]


VIDEOS = {
    "one": (["what happens?"], [(4, (70, 90))]),
    "odd number of frames": (["what happens?"], [(3, (112, 60))]),
    "one pair": (["what happens?"], [(2, (70, 90))]),
    "two in a prompt": (["<image> or <image>?"], [(4, (70, 90)), (5, (112, 60))]),
    "padded batch": (["what?", "and what happens here?"], [(12, (70, 90)), (2, (112, 60))]),
}


@pytest.mark.parametrize("case", VIDEOS)
@torch.inference_mode()
def test_videos_are_stocks(name, family, case):
    prompts, shapes = VIDEOS[case]
    videos = [video(10 * i, *shape) for i, shape in enumerate(shapes)]
    features = family.encode(videos)
    tokens = family.project(features, None)
    prompt = build_prompt(family, prompts, tokens)
    pairs = [(frames + 1) // 2 for frames, _ in shapes]
    assert [grid[0] for grid in tokens.grids] == pairs and features.video
    prepared = family.prepare_videos(videos)
    ids = prompt.input_ids.masked_fill(prompt.visual, family.model.config.video_token_id)
    timing = {"second_per_grid_ts": [2 / 24] * len(videos)} if name == "qwen2_5_vl" else {}
    assert torch.equal(prompt.positions, stock_positions(family, prompt, features, videos))
    output = family.model.generate(
        input_ids=ids,
        attention_mask=prompt.attention_mask,
        mm_token_type_ids=prompt.visual.int() * 2,
        **prepared.inputs,
        **timing,
        max_new_tokens=STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert (ours - torch.stack(output.logits, 1)).abs().max() < 1e-4
    assert [list(one) for one in generation.token_ids] == output.sequences[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("frames", [2, 5])
def test_videos_are_written_as_stock_writes_them(name, family, frames):
    features = family.encode([video(0, frames)])
    pairs = (frames + 1) // 2
    grid = [pairs, *(2 * side for side in features.tiles[0].grid)]
    told = VideoMetadata(total_num_frames=frames, fps=None, frames_indices=list(range(frames)))
    batch = {"video_grid_thw": torch.tensor([grid]), "video_metadata": [told]}
    processor = stock_processor(name, family)
    expanded = processor.replace_video_token(batch, 0)
    text, _ = processor.get_text_with_replacements(
        [chat_text(family, "what?", 1, "video")], videos_replacements=[expanded]
    )
    prompt = build_prompt(family, ["what?"], family.project(features, None))
    assert written(family, prompt).removeprefix("<s>") == text[0].replace("<|video_pad|>", "<image>")
    assert ("seconds>" in text[0]) == (name == "qwen3_vl")
    assert text[0].count("<|video_pad|>") == sum(features.counts) == pairs * features.counts[0]


def timed(seed, indices, fps, total):
    times = tuple(index / fps for index in indices)
    return replace(video(seed, len(indices)), times=times, duration=total / fps)


@torch.inference_mode()
def test_true_times_give_stocks_text_and_positions(name, family):
    sampled = [([0, 30, 61, 90, 120], 30.0, 150), ([0, 7, 14, 21], 8.0, 28)]
    videos = [timed(10 * i, *each) for i, each in enumerate(sampled)]
    features = family.encode(videos)
    told = [
        VideoMetadata(total_num_frames=total, fps=fps, frames_indices=list(indices)) for indices, fps, total in sampled
    ]
    rates = [metadata.sampled_fps for metadata in told]
    assert features.frame_rates == pytest.approx(rates)
    grids = torch.tensor([[len(own), *(2 * side for side in own[0][1].grid)] for own in of_images(features)])
    processor, batch = stock_processor(name, family), {"video_grid_thw": grids, "video_metadata": told}
    for i, markup in enumerate(features.markup):
        assert markup == processor.replace_video_token(batch, i).replace("<|video_pad|>", "<image>")
    prompt = build_prompt(family, ["what?", "and what happens here?"], family.project(features, None))
    timing = {"second_per_grid_ts": [2 / rate for rate in rates]} if name == "qwen2_5_vl" else {}
    stock, _ = family.model.model.get_rope_index(
        input_ids=prompt.input_ids,
        mm_token_type_ids=prompt.visual.int() * 2,
        attention_mask=prompt.attention_mask,
        video_grid_thw=grids,
        **timing,
    )
    assert torch.equal(prompt.positions, stock)
    untimed = build_prompt(
        family,
        ["what?", "and what happens here?"],
        family.project(family.encode([replace(each, times=(), duration=None) for each in videos]), None),
    )
    changed = prompt.input_ids.tolist() != untimed.input_ids.tolist() or not torch.equal(stock, untimed.positions)
    assert changed == (name != "qwen2_vl")


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_frames_are_cut_and_paired_as_stock_does_it(name, family, frames):
    """The stock video processor's own cutting, on frames that Pillow resized."""
    one = video(0, frames, (112, 60))
    prepared = family.prepare_videos([one])
    pixels, grid = prepared.inputs.values()
    _, high, wide = grid[0].tolist()
    processor = family.processor.image_processor
    resized = [np.array(frame.resize((wide * PATCH, high * PATCH), 3)) for frame in one.frames]
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    frame = torch.stack([torch.from_numpy(array).permute(2, 0, 1) / 255 for array in resized])
    normal = ((frame - mean) / std)[None]
    cut, *shape = Qwen3VLVideoProcessor.patchify(None, normal, PATCH, 2, 2)
    assert grid.tolist() == [shape] and shape[0] == (frames + 1) // 2
    assert pixels.shape == cut[0].shape and (pixels - cut[0]).abs().max() < 1e-5
    for i, seen in enumerate(prepared.pixels):  # a pair is shown by its first frame
        assert (seen - normal[0, 2 * i]).abs().max() < 1e-5


@pytest.mark.parametrize("told", [None, {"shortest_edge": 16 * 28 * 28, "longest_edge": 24 * 28 * 28}])
def test_a_videos_size_is_its_own(name, told):
    """Of each frame for Qwen2; of all together for Qwen3, whose frames get fewer tokens the more they are."""
    family = BUILD[name]()
    family.processor.video_size = told
    counts = {frames: family.encode([video(0, frames, (84, 84))]).counts for frames in (2, 8)}
    if told is None:
        expected = {2: (9,), 8: (4,) * 4} if name == "qwen3_vl" else {2: (9,), 8: (9,) * 4}
    else:
        expected = {2: (9,), 8: (1,) * 4} if name == "qwen3_vl" else {2: (16,), 8: (16,) * 4}
    assert counts == expected


@torch.inference_mode()
def test_a_pruned_video_inside_and_before_is_its_slow_reference(name, family):
    tokens, own = (kept(one, [video(0, 6)], 0.5, "image") for one in (family, BUILD[name]("eager")))
    eager = BUILD[name]("eager")
    prompt = build_prompt(eager, ["what happens?"], own)
    ids, logits, hidden = answer_by_hiding(eager, prompt, [(2, 0.5), (3, 0.5)], STEPS)
    generation, ours = run(family, tokens, ["what happens?"], [fastv(2, 0.5), fastv(3, 0.5)])
    assert list(generation.token_ids[0]) == ids and (ours[0] - logits).abs().max() < 1e-3
    assert list(generation.kv_lengths) == [prompt.lengths[0] + STEPS - 1 - len(dropped) for dropped in hidden]
    assert generation.encoded > generation.projected > generation.visual_per_layer[2] > generation.visual_per_layer[3]


def test_no_cut_comes_before_the_last_deepstack_layer():
    family = qwen3()
    tokens = kept(family, pictures((112, 112)), 0.5)
    with pytest.raises(UserError, match=r"layer 1: .* adds visual features up to layer 1") as caught:
        generate(family, tokens, ["x"], [fastv(1, 0.5)])
    assert "2 … 4" in caught.value.hint
    assert run(family, tokens, ["x"], [fastv(2, 0.5)])[0].visual_per_layer == (8, 8, 4, 4, 4)
    plain = qwen3(deepstack=())
    assert plain.first_cut == 1
    shallow = kept(plain, pictures((112, 112)), 0.5)
    assert plain.prefill_inputs(build_prompt(plain, ["x"], shallow)) == {}
    assert run(plain, shallow, ["x"], [fastv(1, 0.5)])[0].visual_per_layer == (8, 4, 4, 4, 4)


@pytest.mark.parametrize("size", [(202, 1), (1, 202), (2001, 10)])
def test_a_picture_that_stock_refuses_is_refused_in_one_sentence(family, size):
    image = tiny.image(0, *size)
    with pytest.raises(ValueError, match="aspect ratio"):
        family.processor.image_processor([image.picture], return_tensors="pt")
    for given in (image, Video((image.picture,) * 2, "x")):
        with pytest.raises(UserError, match=f"{size[0]} × {size[1]} pixels is too oblong") as caught:
            family.encode([given])
        assert "200" in caught.value.hint
    assert len(family.encode([tiny.image(0, 200, 1)]).tiles) == 1


def test_what_it_does_not_take_is_refused(name, family):
    with pytest.raises(UserError, match="not both"):
        family.encode([video(0), tiny.image(0)])
    with pytest.raises(UserError, match="sees the whole picture"):
        qwen25(whole=()).encode([tiny.image(0)])
    single = Video((tiny.image(0).picture,), "x")
    if name == "qwen3_vl":
        with pytest.raises(UserError, match="at least 2 frames, not 1"):
            family.encode([single])
    else:
        assert len(family.encode([single]).tiles) == 1


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_a_second_question_uses_the_first_ones_keys(name, family, loop):
    """Not with DeepStack, whose features would have to be cut as well."""
    family.forget()
    tokens = kept(family, pictures((112, 112)), 0.5)
    first, _ = run(family, tokens, ["is it red?"], loop=loop)
    second, logits = run(family, tokens, ["is it blue and large?"], loop=loop)
    assert first.reused == 0 and (second.reused > 0) == (name != "qwen3_vl")
    family.forget()
    fresh, expected = run(family, tokens, ["is it blue and large?"], loop=loop)
    assert fresh.reused == 0 and fresh.token_ids == second.token_ids
    assert (logits - expected).abs().max() < 1e-4


@torch.inference_mode()
def test_the_disk_cache_keeps_everything(name, family, tmp_path):
    features = family.encode([video(0, 4)])
    TensorCodec().dump(features, tmp_path)
    before, after = (family.project(one, None) for one in (features, TensorCodec().load(tmp_path)))
    assert torch.equal(before.embeddings[0], after.embeddings[0])
    assert len(before.deepstack[0]) == len(after.deepstack[0]) == (2 if name == "qwen3_vl" else 0)
    assert all(map(torch.equal, before.deepstack[0], after.deepstack[0]))
    one, other = (run(family, tokens, ["what?"])[0].token_ids for tokens in (before, after))
    assert one == other


def test_a_saved_folder_gives_the_same_answers(family, tmp_path):
    prompts = ["what?", "and here?"]
    opened = same_answers_from(tmp_path, family, pictures((112, 112), (150, 60)), prompts)
    assert opened.processor.video_size is None
    answers = [run(one, kept(one, [video(0), video(5)], 0.5), prompts)[1] for one in (family, opened)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("video_preprocessor_config.json", {"size": {"shortest_edge": 12544, "longest_edge": 18816}}),
        ("video_preprocessor_config.json", {"min_pixels": 12544, "max_pixels": 18816}),
        ("processor_config.json", {"video_processor": {"size": {"shortest_edge": 12544, "longest_edge": 18816}}}),
    ],
)
def test_a_folder_tells_the_size_of_videos(file, told, tmp_path):
    family = BUILD["qwen2_vl"]()
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(told))
    opened = load_model(str(tmp_path), device="cpu").family
    assert opened.processor.video_size == {"shortest_edge": 12544, "longest_edge": 18816}
    assert opened.encode([video(0, 2, (84, 84))]).counts == (16,)
    assert opened.encode([tiny.image(0, 84, 84)]).counts == (9,)


def test_the_arithmetic_counts_every_matrix_once(name, family):
    sizes = family.model_sizes()
    tower = family.tower
    every = sum(weight.numel() for weight in tower.parameters() if weight.ndim > 1)
    every -= tower.pos_embed.weight.numel() if name == "qwen3_vl" else 0
    assert sizes.patch_weights == 3 * 2 * PATCH**2 * 32 and sizes.tower_width == 32 and sizes.patches == 4
    assert sizes.whole_tower[0] + sizes.patch_weights + sizes.projector_weights == every
