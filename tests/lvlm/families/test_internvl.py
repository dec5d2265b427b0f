"""InternVL: tiles, merging, markup and frames as stock has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers.models.internvl.processing_internvl import InternVLProcessor

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import ZOO, everything, stock_answer
from tests.lvlm.zoo.internvl import build

TILES = {(30, 30): 1, (128, 128): 5, (200, 90): 3, (90, 200): 3, (300, 100): 4, (20, 300): 5, (600, 3): 5, (1, 1): 1}
STOCK = SimpleNamespace(start_image_token="<img>", end_image_token="</img>", image_token="<image>", image_seq_length=16)


def video(seed, frames=3, size=(60, 40)):
    return Video(tuple(tiny.image(seed + i, *size).picture for i in range(frames)), f"video-{seed}")


@pytest.fixture(scope="module")
def family():
    return build()


@pytest.mark.parametrize("size", TILES)
def test_tiles_and_markup_are_stocks(family, size):
    features = family.encode([tiny.image(0, *size)])
    assert features.counts == (16,) * TILES[size]
    assert features.markup == (InternVLProcessor.replace_image_token(STOCK, {"num_patches": [TILES[size]]}, 0),)
    processor = family.processor.image_processor
    assert processor.get_number_of_image_patches(size[1], size[0], {"crop_to_patches": True}) == TILES[size]


def test_the_tokens_that_wrap_a_picture_are_the_tokenizers_own():
    family = build()
    family.processor.tokenizer.start_image_token = "<|im_start|>"
    family.processor.tokenizer.end_image_token = "<|im_end|>"
    assert family.encode([tiny.image(0, 30, 30)]).markup == ("<|im_start|>" + "<image>" * 16 + "<|im_end|>",)


def test_a_visual_token_is_made_of_a_square_of_patches(family):
    by_hand = [[8 * (2 * r + i) + 2 * c + j for i in (0, 1) for j in (0, 1)] for r in range(4) for c in range(4)]
    units = family.patch_groups((4, 4))
    assert [sorted(unit) for unit in units.tolist()] == by_hand


@torch.inference_mode()
def test_features_are_the_projected_patches_of_their_units(family):
    features = family.encode([tiny.image(0, 130, 64)])
    pixels = torch.stack(features.pixels)
    patches = family.tower(pixels).last_hidden_state[:, 1:]
    for tile, own in zip(features.tiles, patches, strict=True):
        assert tile.grid == (4, 4) and tile.attention.prefix == 1
        squares = torch.stack([own[unit].flatten() for unit in tile.attention.patch_groups])
        assert torch.allclose(family.projector(squares), tile.features, atol=1e-5)


@pytest.mark.parametrize(("named", "layer"), [(-1, 3), (-3, 1), (2, 1), (4, 3)])
@torch.inference_mode()
def test_scores_come_from_the_layer_that_the_projector_reads(named, layer):
    family = build("eager", vision_feature_layer=named)
    features = family.encode([tiny.image(0, 64, 128)])
    weights = family.tower(torch.stack(features.pixels), output_attentions=True).attentions[layer].mean(1)
    scores = Significance()(features=features, direction="received")
    for tile, seen, score in zip(features.tiles, weights, scores.scores, strict=True):
        noted = tile.attention
        ours = (noted.query @ noted.key.transpose(1, 2) * noted.scale).softmax(-1).mean(0)
        assert torch.allclose(ours, seen, atol=1e-5)
        received = seen[1:, 1:].mean(0)
        assert torch.allclose(score, received[noted.patch_groups].mean(1), atol=1e-5)


@pytest.mark.parametrize("named", [0, 5, -5, [-1, -2]])
def test_a_layer_that_is_not_there_is_refused(named):
    with pytest.raises(UserError, match="vision_feature_layer"):
        build(vision_feature_layer=named).encode([tiny.image(0)])


@pytest.mark.parametrize("text", ["Qwen2Config", "Qwen3Config", "LlamaConfig"])
@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_every_loop_is_the_stock_model(text, loop):
    family = build(text=getattr(transformers, text), seed=71)
    images = [tiny.image(0, 130, 64), tiny.image(1, 30, 30)]
    prompts = ["what?", "a longer question about it"]
    ids, logits = stock_answer(ZOO["internvl"], family, prompts, images, STEPS)
    generation, ours = run(family, everything(family, images), prompts, [fastv(2, 1.0)], loop=loop)
    assert [list(one) for one in generation.token_ids] == ids
    assert (ours - logits).abs().max() < 1e-4


def test_videos_are_stocks(family):
    videos = [video(0, 3), video(9, 2, (30, 90))]
    features = family.encode(videos)
    assert [tile.image for tile in features.tiles] == [0, 0, 0, 1, 1] and features.counts == (16,) * 5
    films = {"pixel_values_videos": [torch.zeros(3, 1), torch.zeros(2, 1)]}
    assert features.markup == tuple(InternVLProcessor.replace_video_token(STOCK, films, i) for i in (0, 1))
    prompts, tokens = ["what?", "and what is here?"], family.project(features, None)
    prompt = build_prompt(family, prompts, tokens)
    written = family.processor.tokenizer.decode(prompt.input_ids[1][-prompt.lengths[1] :])
    assert written.endswith(f"user\n{features.markup[1]}\nand what is here?<|im_end|>\n<|im_start|>assistant\n")
    output = family.model.generate(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        pixel_values=torch.stack(features.pixels),
        max_new_tokens=STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert [list(one) for one in generation.token_ids] == output.sequences[:, prompt.input_ids.shape[1] :].tolist()
    assert (ours - torch.stack(output.logits, 1)).abs().max() < 1e-4


def test_a_frame_is_the_picture_as_one_tile(family):
    features = family.encode([video(0, 2)])
    single = family.processor.image_processor(list(video(0, 2).frames), return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.stack(features.pixels), single)
    with pytest.raises(UserError, match="not both"):
        family.encode([video(0), tiny.image(0)])


def test_a_saved_folder_gives_the_same_answers(family, tmp_path):
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.chat_template = family.processor.chat_template
    family.processor.tokenizer.save_pretrained(tmp_path)
    opened = load_model(str(tmp_path), device="cpu").family
    for given in ([tiny.image(0, 130, 64), tiny.image(1, 30, 30)], [video(0), video(5)]):
        answers = []
        for one in (family, opened):
            features = one.encode(given)
            chosen = RankPrune()(significance=Significance()(features=features), ratio=0.5)
            answers.append(run(one, one.project(features, chosen), ["what?", "and here?"], [fastv(2, 0.5)]))
        assert answers[0][0].token_ids == answers[1][0].token_ids
        assert torch.equal(answers[0][1], answers[1][1])
        assert answers[0][0].visual_per_layer[-1] < answers[0][0].projected < answers[0][0].encoded
