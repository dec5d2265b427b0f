"""Gemma 3: pooling, markup, masks of image blocks and of sliding windows as stock has them."""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding
from tests.lvlm.saved import same_answers_from
from tests.lvlm.test_invariants import STEPS, fastv, run
from tests.lvlm.zoo import everything
from tests.lvlm.zoo.gemma3 import MARKERS, SIDE, build

WINDOW = 24
ASKED = "<s><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
PROMPTS = {  # what is asked, and how its template writes it
    "what?": ASKED.format("<start_of_image>what?"),
    "<image> what?": ASKED.format("<start_of_image>what?"),
    "this <image> or <image>?": ASKED.format("this<start_of_image>or<start_of_image>?"),
    "<image> <image> which": ASKED.format("<start_of_image><start_of_image>which"),
}


@pytest.fixture(scope="module")
def family():
    return build()


@pytest.fixture(scope="module")
def eager():
    return build("eager")


def stock_processor(family, image="<image>"):
    tokenizer = family.processor.tokenizer
    tokenizer._set_model_specific_special_tokens(
        {"image_token": image, "boi_token": MARKERS[0], "eoi_token": MARKERS[1]}
    )
    return transformers.Gemma3Processor(family.processor.image_processor, tokenizer, image_seq_length=16)


@contextlib.contextmanager
def masks_of(family):
    """The mask that every layer gets in the first forward."""
    seen, hooks = {}, []

    def noting(index):
        def note(_layer, _args, given, _output):
            seen.setdefault(index, given["attention_mask"])

        return note

    try:
        for index, layer in enumerate(family.layers):
            hooks.append(layer.register_forward_hook(noting(index), with_kwargs=True))
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def check_against_stock(family, prompts, counts, processor):
    """Ids, masks and answers of the stock processor and the stock generate, nothing of ours."""
    images = [tiny.image(i, 40 + 30 * i, 90) for i in range(sum(counts))]
    rest = iter(images)
    inputs = processor(
        text=[PROMPTS[prompt] for prompt in prompts],
        images=[[next(rest).picture for _ in range(count)] for count in counts],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
    )
    tokens = everything(family, images)
    prompt = build_prompt(family, prompts, tokens)
    assert torch.equal(prompt.input_ids, inputs["input_ids"])
    assert torch.equal(prompt.attention_mask, inputs["attention_mask"])
    assert torch.equal(family.prefill_inputs(prompt)["token_type_ids"], inputs["token_type_ids"])
    output = family.model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert [list(one) for one in generation.token_ids] == output.sequences[:, prompt.input_ids.shape[1] :].tolist()
    assert (ours - torch.stack(output.logits, 1)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("prompts", "counts"),
    [
        (["what?"], [1]),
        (["this <image> or <image>?"], [2]),
        (["<image> <image> which", "<image> what?"], [2, 1]),
    ],
)
def test_prompts_and_answers_are_those_of_the_stock_processor(family, prompts, counts):
    check_against_stock(family, prompts, counts, stock_processor(family))


def test_the_image_token_may_be_no_word_of_the_model():
    family = build(image_id=390)
    tokenizer = family.processor.tokenizer
    fillers = [f"<unused{i}>" for i in range(390 - len(tokenizer))]
    tokenizer.add_special_tokens({"additional_special_tokens": [*fillers, "<soft>"]})
    assert tokenizer.convert_tokens_to_ids("<soft>") == 390 >= family.model.config.text_config.vocab_size
    check_against_stock(family, ["<image> <image> which", "<image> what?"], [2, 1], stock_processor(family, "<soft>"))


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (500, 3), (30, 200)])
def test_every_picture_is_one_tile_without_pan_and_scan(size):
    family = build()
    family.processor.image_processor = transformers.Gemma3ImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=2,
        pan_and_scan_max_num_crops=4,
        pan_and_scan_min_ratio_to_activate=1.2,
    )
    features = family.encode([tiny.image(0, *size)])
    assert features.counts == (16,) and features.tiles[0].grid == (4, 4)
    assert features.markup == ("\n\n<start_of_image>" + "<image>" * 16 + "<end_of_image>\n\n",)


def test_a_visual_token_is_the_mean_of_the_patches_that_the_model_pools(family):
    shares = family.projector.avg_pool(torch.eye(64).view(1, 64, 8, 8))[0].flatten(1).T  # (16 tokens, 64 patches)
    units = family.patch_groups((4, 4))
    assert units.shape == (16, 4) and family.patches == 4
    for share, unit in zip(shares, units.tolist(), strict=True):
        assert share.nonzero()[:, 0].tolist() == sorted(unit) and (share[unit] == 0.25).all()


@torch.inference_mode()
def test_features_and_scores_are_those_of_the_towers_end(eager):
    features = eager.encode([tiny.image(0, 120, 40), tiny.image(1, 64, 64)])
    output = eager.tower(torch.stack(features.pixels), output_attentions=True)
    scores = Significance()(features=features, direction="received")
    seen = output.attentions[-1].mean(1)
    for i, (tile, score) in enumerate(zip(features.tiles, scores.scores, strict=True)):
        pooled = output.last_hidden_state[i][tile.attention.patch_groups].mean(1)
        normed = eager.projector.mm_soft_emb_norm(pooled)
        assert torch.allclose(normed @ eager.projector.mm_input_projection_weight, tile.features, atol=1e-4)
        noted = tile.attention
        ours = (noted.query @ noted.key.transpose(1, 2) * noted.scale).softmax(-1).mean(0)
        assert torch.allclose(ours, seen[i], atol=1e-5)
        assert torch.allclose(score, seen[i].mean(0)[noted.patch_groups].mean(1), atol=1e-5)


@pytest.mark.parametrize(("ratio", "cut"), [(1.0, 1.0), (0.5, 0.5)])
def test_what_is_left_of_an_image_is_one_block_and_two_images_are_two(family, ratio, cut):
    features = family.encode([tiny.image(0), tiny.image(1)])
    chosen = RankPrune()(significance=Significance()(features=features), ratio=ratio)
    tokens = family.project(features, chosen)
    text = "<image> <image> which"
    prompt = build_prompt(family, [text], tokens)
    with masks_of(family) as seen:
        generation, _ = run(family, tokens, [text], [fastv(2, cut)])
    owner = torch.full((prompt.lengths[0],), -1)  # which image every position is of
    owner[prompt.visual[0]] = torch.cat(
        [torch.full((len(rows),), image) for image, rows in enumerate(tokens.embeddings)]
    )
    left = {tuple(place) for kept in generation.kept for place in kept.tolist()}
    alive = owner < 0
    alive[prompt.visual[0]] = torch.tensor([tuple(place) in left for place in torch.cat(tokens.origin).tolist()])
    whole, short = torch.arange(len(owner)), alive.nonzero()[:, 0]
    assert (len(short) < len(whole)) == (cut < 1)
    for layer, mask in seen.items():
        at = whole if layer < 2 else short
        query, key = at[:, None], at[None, :]
        block = (owner[query] == owner[key]) & (owner[query] >= 0)
        expected = (key <= query) | block
        if family.language_model.config.layer_types[layer] == "sliding_attention":
            expected &= key > query - WINDOW
        assert torch.equal(mask[0, 0], expected)
    assert block.any() and len(seen) == len(family.layers)


@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize("text", ["what?", "a question that is so long that no image is in the last token's window"])
def test_dropping_is_hiding_after_any_kind_of_layer(family, eager, first, text):
    images = [tiny.image(0), tiny.image(1)]
    prompt = build_prompt(eager, [text], everything(eager, images))
    ids, logits, hidden = answer_by_hiding(eager, prompt, [(first, 0.25)], STEPS)
    generation, ours = run(family, everything(family, images), [text], [fastv(first, 0.25)])
    assert list(generation.token_ids[0]) == ids and (ours[0] - logits).abs().max() < 1e-3
    assert [32 - len(dropped) for dropped in hidden] == list(generation.visual_per_layer)
    assert generation.visual_per_layer[first] == 8


def test_videos_are_refused(family):
    with pytest.raises(UserError, match="takes no videos"):
        family.encode([Video((tiny.image(0).picture,), "v")])


def test_a_saved_folder_gives_the_same_answers(tmp_path):
    family = build()
    opened = same_answers_from(tmp_path / "parts", family, [tiny.image(0), tiny.image(1)], ["what?", "and here?"])
    assert opened.processor.lacks
    stock_processor(family)  # makes the tokenizer know the names of its tokens, as a checkpoint's does
    opened = same_answers_from(tmp_path / "whole", family, [tiny.image(0), tiny.image(1)], ["what?", "and here?"])
    assert isinstance(opened.processor, transformers.Gemma3Processor)
