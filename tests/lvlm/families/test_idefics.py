"""Idefics3 and SmolVLM: tiles, merging, markup and frames as stock has them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
import transformers
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.video_utils import VideoMetadata

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.idefics import _words
from fopru_graph.lvlm.inputs.chat import chat_text
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Selection, Video
from tests import tiny
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import ZOO, everything, stock_answer
from tests.lvlm.zoo.idefics import SIDE, idefics3, smolvlm

BUILD = {"idefics3": idefics3, "smolvlm": smolvlm}
TOKENS = {"idefics3": 16, "smolvlm": 4}  # of one tile
# Rows and columns of a picture whose longer side becomes 192 (Idefics3) or 256 pixels (SmolVLM), in tiles of 64.
SHAPES = {
    (64, 64): {"idefics3": (3, 3), "smolvlm": (4, 4)},
    (120, 40): {"idefics3": (1, 3), "smolvlm": (2, 4)},
    (40, 90): {"idefics3": (3, 2), "smolvlm": (4, 2)},
    (300, 20): {"idefics3": (1, 3), "smolvlm": (1, 4)},
    (1, 200): {"idefics3": (3, 1), "smolvlm": (4, 1)},
}


def video(seed, frames=3, size=(60, 40)):
    return Video(tuple(tiny.image(seed + i, *size).picture for i in range(frames)), f"video-{seed}")


def generated(family, prompt, **inputs):
    output = family.model.generate(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        **inputs,
        max_new_tokens=STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.sequences[:, prompt.input_ids.shape[1] :].tolist(), torch.stack(output.logits, 1)


@pytest.fixture(scope="module", params=BUILD)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def family(kind):
    return BUILD[kind]()


@pytest.mark.parametrize("size", SHAPES)
def test_tiles_and_markup_are_stocks(family, kind, size):
    rows, columns = SHAPES[size][kind]
    features = family.encode([tiny.image(0, *size)])
    assert features.counts == (TOKENS[kind],) * (rows * columns + 1)
    stock = SimpleNamespace(
        image_seq_len=TOKENS[kind],
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
    )
    shape = {"rows": [[rows]], "cols": [[columns]]}
    assert features.markup == (SmolVLMProcessor.replace_image_token(stock, shape, 0),)


def test_a_picture_that_is_not_cut_is_one_tile(family, kind):
    processor = family.processor.image_processor
    processor.do_image_splitting = False
    try:
        features = family.encode([tiny.image(0, 90, 40)])
    finally:
        processor.do_image_splitting = True
    fake = "<fake_token_around_image>"
    assert features.markup == (f"{fake}<global-img>{'<image>' * TOKENS[kind]}{fake}",)
    assert features.counts == (TOKENS[kind],)


@pytest.mark.parametrize("batch", ["two images", "a batch"])
def test_the_stock_processor_gives_the_same_prompt_and_answer(batch):
    family = idefics3(seed=82)
    processor = transformers.Idefics3Processor(
        family.processor.image_processor, family.processor.tokenizer, image_seq_len=16
    )
    images = [tiny.image(0, 64, 64), tiny.image(1, 120, 40)]
    prompts = ["<image> or <image>?"] if batch == "two images" else ["what?", "a longer question about it"]
    nested = [[image.picture for image in images]] if batch == "two images" else [[image.picture] for image in images]
    texts = [chat_text(family, prompt, len(own)) for prompt, own in zip(prompts, nested, strict=True)]
    assert texts[0].startswith("<s>User:<image>")
    inputs = processor(
        text=texts, images=nested, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
    )
    tokens = everything(family, images)
    prompt = build_prompt(family, prompts, tokens)
    assert torch.equal(prompt.input_ids, inputs.input_ids)
    assert torch.equal(prompt.attention_mask, inputs.attention_mask)
    pixels = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask")}
    ids, logits = generated(family, prompt, **pixels)
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


def test_a_visual_token_is_made_of_a_square_of_patches(family, kind):
    side = {"idefics3": 2, "smolvlm": 4}[kind]
    around = range(side)
    by_hand = [
        [8 * (side * r + i) + side * c + j for i in around for j in around]
        for r in range(8 // side)
        for c in range(8 // side)
    ]
    units = family.patch_groups((8 // side, 8 // side))
    assert [sorted(unit) for unit in units.tolist()] == by_hand


@torch.inference_mode()
def test_features_are_the_projected_patches_of_their_units(family, kind):
    features = family.encode([tiny.image(0, 120, 40), tiny.image(1, 64, 64)])
    patches = family.tower(torch.stack(features.pixels)).last_hidden_state
    assert len(patches) == sum(r * c + 1 for r, c in (SHAPES[120, 40][kind], SHAPES[64, 64][kind]))
    for tile, own in zip(features.tiles, patches, strict=True):
        assert tile.attention.prefix == 0
        squares = torch.stack([own[unit].flatten() for unit in tile.attention.patch_groups])
        assert torch.allclose(family.projector.modality_projection(squares), tile.features, atol=1e-5)


@torch.inference_mode()
def test_scores_come_from_the_last_layer(kind):
    family = BUILD[kind]("eager")
    features = family.encode([tiny.image(0, 120, 40)])
    weights = family.tower(torch.stack(features.pixels), output_attentions=True).attentions[-1].mean(1)
    scores = Significance()(features=features, direction="received")
    for tile, seen, score in zip(features.tiles, weights, scores.scores, strict=True):
        noted = tile.attention
        ours = (noted.query @ noted.key.transpose(1, 2) * noted.scale).softmax(-1).mean(0)
        assert torch.allclose(ours, seen, atol=1e-5)
        assert torch.allclose(score, seen.mean(0)[noted.patch_groups].mean(1), atol=1e-5)


def test_markers_stay_when_visual_tokens_go(family, kind):
    features = family.encode([tiny.image(0, 120, 40)])
    whole = build_prompt(family, ["what?"], family.project(features, None))
    first = [torch.tensor([1]), *(torch.tensor([], dtype=torch.int64) for _ in features.tiles[1:])]
    pruned = build_prompt(family, ["what?"], family.project(features, Selection(tuple(first), features.counts)))
    decode = family.processor.tokenizer.decode
    text = decode(whole.input_ids[0])
    assert text.count("<fake_token_around_image>") == len(features.tiles) + 1
    tokens = "<image>" * TOKENS[kind]
    assert decode(pruned.input_ids[0]) == text.replace(tokens, "<image>", 1).replace(tokens, "")


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_every_loop_is_the_stock_model(family, kind, loop):
    images = [tiny.image(0, 120, 40), tiny.image(1, 64, 64)]
    prompts = ["what?", "a longer question about it"]
    ids, logits = stock_answer(ZOO[kind], family, prompts, images, STEPS)
    generation, ours = run(family, everything(family, images), prompts, [fastv(2, 1.0)], loop=loop)
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


def test_videos_of_smolvlm_are_stocks(monkeypatch):
    family = smolvlm(seed=83)
    videos = [video(0, 3), video(9, 26, (30, 90))]
    features = family.encode(videos)
    assert features.counts == (4,) * 29 and [tile.image for tile in features.tiles] == [0] * 3 + [1] * 26
    monkeypatch.setattr(processing_smolvlm, "num2words", {3: "three", 26: "twenty-six"}.get)
    stock = SimpleNamespace(
        image_seq_len=4,
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
    )
    for i, frames in enumerate((3, 26)):
        metadata = VideoMetadata(total_num_frames=frames, frames_indices=list(range(frames)))
        film = {"pixel_values": torch.zeros(1, frames), "video_metadata": [metadata]}
        assert features.markup[i] == SmolVLMProcessor.replace_video_token(stock, film, 0)
    assert "\nFrame from 00:01:" in features.markup[1]
    prompts, tokens = ["<image>what?", "<image> and what is here?"], family.project(features, None)
    prompt = build_prompt(family, prompts, tokens)
    for i, said in enumerate(["what?", " and what is here?"]):
        written = family.processor.tokenizer.decode(prompt.input_ids[i][-prompt.lengths[i] :])
        assert written == f"<s>User: {features.markup[i]}{said}<end_of_utterance>\nAssistant:"
    ids, logits = generated(family, prompt, pixel_values=torch.stack(features.pixels)[None])
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


def test_true_times_are_written_as_stock_writes_them(monkeypatch):
    monkeypatch.setattr(processing_smolvlm, "num2words", {3: "three"}.get)
    stock = SimpleNamespace(
        image_seq_len=4,
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
    )
    indices, fps, total = [0, 45, 1999], 25, 2500
    told = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps, frames_indices=indices)
    film = {"pixel_values": torch.zeros(1, 3), "video_metadata": [told]}
    timed = replace(video(0, 3), times=tuple(index / fps for index in indices), duration=total / fps)
    markup = smolvlm().encode([timed]).markup[0]
    assert markup == SmolVLMProcessor.replace_video_token(stock, film, 0)
    assert "from a 0:01:40 " in markup and "Frame from 00:01:" in markup and "Frame from 01:19:" in markup


def test_a_frame_is_one_square_resized_as_the_checkpoint_says():
    family = smolvlm()
    family.processor.image_processor.video_sampling = {"video_size": {"longest_edge": 32}}
    frame = tiny.image(0, 100, 50).picture
    by_hand = frame.resize((32, 16), PIL.Image.Resampling.LANCZOS).resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    features = family.encode([Video((frame,), "x")])
    expected = torch.frombuffer(bytearray(by_hand.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3)
    assert torch.equal(features.seen(0), expected)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "one"), (13, "thirteen"), (20, "twenty"), (64, "sixty-four"), (100, "one hundred")]
    + [(115, "one hundred and fifteen"), (342, "three hundred and forty-two")],
)
def test_numbers_in_words(number, words):
    assert _words(number) == words


def test_what_is_refused(family, kind):
    with pytest.raises(UserError, match="not both"):
        family.encode([video(0), tiny.image(0)])
    with pytest.raises(UserError, match="takes no videos" if kind == "idefics3" else "1000 frames"):
        family.encode([Video((tiny.image(0, 8, 8).picture,) * 1000, "x")])


def test_a_saved_folder_gives_the_same_answers(kind, tmp_path):
    family = BUILD[kind](seed=84)
    family.processor.image_processor.video_sampling = {"video_size": {"longest_edge": 32}}
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.chat_template = family.processor.chat_template
    family.processor.tokenizer.save_pretrained(tmp_path)
    opened = load_model(str(tmp_path), device="cpu").family
    given = [[tiny.image(0, 120, 40), tiny.image(1, 64, 64)], [video(0), video(5)]]
    for images in given if kind == "smolvlm" else given[:1]:
        answers = []
        for one in (family, opened):
            features = one.encode(images)
            chosen = RankPrune()(significance=Significance()(features=features), ratio=0.5)
            answers.append(run(one, one.project(features, chosen), ["what?", "and here?"], [fastv(2, 0.5)]))
        assert answers[0][0].token_ids == answers[1][0].token_ids
        assert torch.equal(answers[0][1], answers[1][1])
        assert answers[0][0].visual_per_layer[-1] < answers[0][0].projected < answers[0][0].encoded
