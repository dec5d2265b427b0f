"""PaliGemma: prompts without a chat, positions from 1, and a prompt that sees itself, as stock has them."""

from __future__ import annotations

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
from tests.lvlm.zoo import ZOO, everything, stock_answer
from tests.lvlm.zoo.paligemma import build
from tests.lvlm.zoo.rows import tokenizer

ASKED = {  # as the stock processor is asked; it adds the beginning and the newline
    "what?": "<image>what?",
    "<image> what?": "<image> what?",
    "<image>\nwhat?": "<image>\nwhat?",
    "\nwhat?": "<image>\nwhat?",
    "<image> <image> which": "<image> <image> which",
    "this <image> or <image>?": "this <image> or <image>?",
}
BATCHES = [
    (["what?"], [1]),
    (["\nwhat?"], [1]),
    (["<image>\nwhat?"], [1]),
    (["<image> <image> which"], [2]),
    (["this <image> or <image>?"], [2]),
    (["<image> <image> which", "<image> what?"], [2, 1]),
]


@pytest.fixture(scope="module")
def family():
    return build()


@pytest.fixture(scope="module")
def eager():
    return build("eager")


@pytest.mark.parametrize(("prompts", "counts"), BATCHES)
def test_prompts_and_answers_are_those_of_the_stock_processor(family, prompts, counts):
    processor = transformers.PaliGemmaProcessor(family.processor.image_processor, tokenizer())
    images = [tiny.image(i, 40 + 30 * i, 90) for i in range(sum(counts))]
    rest = iter(images)
    inputs = processor(
        text=[ASKED[prompt] for prompt in prompts],
        images=[[next(rest).picture for _ in range(count)] for count in counts],
        padding=True,
        add_special_tokens=False,  # the byte tokenizer's own <s>, which a checkpoint's tokenizer no longer adds
        return_tensors="pt",
    )
    del inputs["labels"]
    tokens = everything(family, images)
    prompt = build_prompt(family, prompts, tokens)
    real = inputs["attention_mask"].bool()
    assert torch.equal(prompt.input_ids, inputs["input_ids"])
    assert torch.equal(prompt.attention_mask, inputs["attention_mask"])
    assert torch.equal(family.prefill_inputs(prompt)["token_type_ids"][real], inputs["token_type_ids"][real])
    output = family.model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    generation, ours = run(family, tokens, prompts, [fastv(2, 1.0)])
    assert [list(one) for one in generation.token_ids] == output.sequences[:, prompt.input_ids.shape[1] :].tolist()
    assert (ours - torch.stack(output.logits, 1)).abs().max() < 1e-4


def test_positions_are_those_that_the_stock_generate_makes(family):
    prompts, images = ["what?", "a longer question"], [tiny.image(0), tiny.image(1)]
    prompt = build_prompt(family, prompts, everything(family, images))
    seen = []
    hook = family.language_model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["position_ids"]), with_kwargs=True
    )
    try:
        stock_answer(ZOO["paligemma"], family, prompts, images, 3)
        run(family, everything(family, images), prompts, [], loop="thin")
    finally:
        hook.remove()
    real = prompt.attention_mask.bool()
    stock, ours = seen[:3], seen[3:6]
    assert stock[0][real].min() == 1 and torch.equal(stock[0][real], ours[0][real])
    assert torch.equal(ours[0][real], prompt.positions[real]) and (prompt.positions[~real] == 0).all()
    assert torch.equal(stock[1], ours[1]) and torch.equal(stock[2], ours[2])


def test_the_prompt_sees_itself_and_not_the_answer(family):
    tokens = everything(family, [tiny.image(0)])
    seen = []
    hook = family.layers[0].register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["attention_mask"]), with_kwargs=True
    )
    try:
        run(family, tokens, ["what?"], [fastv(2, 0.5)])
    finally:
        hook.remove()
    assert seen[0].dtype == torch.bool and seen[0].all()  # the first forward has no answer to look at yet
    assert seen[0].shape[-2:] == (build_prompt(family, ["what?"], tokens).lengths[0],) * 2
    assert len(seen) == STEPS and all(mask is None for mask in seen[1:])  # one query, which sees all there is


@pytest.mark.parametrize("size", [(1, 1), (56, 56), (500, 3), (30, 200)])
def test_every_picture_is_one_tile(family, size):
    features = family.encode([tiny.image(0, *size)])
    assert features.counts == (16,) and features.tiles[0].grid == (4, 4)
    assert features.markup == ("<image>" * 16,)


@torch.inference_mode()
def test_features_and_scores_are_those_of_the_towers_end(eager):
    features = eager.encode([tiny.image(0, 120, 40), tiny.image(1, 64, 64)])
    output = eager.tower(torch.stack(features.pixels), output_attentions=True)
    scores = Significance()(features=features, direction="received")
    for i, (tile, score) in enumerate(zip(features.tiles, scores.scores, strict=True)):
        assert torch.allclose(eager.projector(output.last_hidden_state[i]), tile.features, atol=1e-5)
        seen, noted = output.attentions[-1][i].mean(0), tile.attention
        ours = (noted.query @ noted.key.transpose(1, 2) * noted.scale).softmax(-1).mean(0)
        assert torch.allclose(ours, seen, atol=1e-5)
        assert torch.allclose(score, seen.mean(0), atol=1e-5)


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize("cap", [50.0, None])
def test_paligemma_2_with_its_sliding_windows_and_bounds(first, cap):
    """Gemma 2 runs eagerly only; attention is bounded by ``cap``, logits always."""
    family = build("eager", text=transformers.Gemma2Config, sliding_window=8, attn_logit_softcapping=cap, seed=93)
    images, prompts = [tiny.image(0), tiny.image(1)], ["what?", "a longer question about it"]
    assert set(family.language_model.config.layer_types) == {"sliding_attention", "full_attention"}
    ids, logits = stock_answer(ZOO["paligemma"], family, prompts, images, STEPS)
    generation, ours = run(family, everything(family, images), prompts, [fastv(first, 1.0)])
    assert [list(one) for one in generation.token_ids] == ids and (ours - logits).abs().max() < 1e-4
    bound = family.language_model.config.final_logit_softcapping
    assert bound and logits.abs().max() < bound
    generation, ours = run(family, everything(family, images), prompts, [fastv(first, 0.5)])
    for i, text in enumerate(prompts):
        prompt = build_prompt(family, [text], everything(family, images[i : i + 1]))
        ids, logits, _ = answer_by_hiding(family, prompt, [(first, 0.5)], STEPS)
        assert list(generation.token_ids[i]) == ids and (ours[i] - logits).abs().max() < 1e-3


def test_a_pruned_prompt_is_numbered_anew_from_1(family):
    features = family.encode([tiny.image(0)])
    chosen = RankPrune()(significance=Significance()(features=features), ratio=0.25)
    prompt = build_prompt(family, ["what?"], family.project(features, chosen))
    assert prompt.positions[0].tolist() == list(range(1, prompt.lengths[0] + 1))
    assert family.processor.tokenizer.decode(prompt.input_ids[0]) == "<image>" * 4 + "<s>what?\n"


def test_videos_are_refused(family):
    with pytest.raises(UserError, match="takes no videos"):
        family.encode([Video((tiny.image(0).picture,), "v")])


def test_a_saved_folder_gives_the_same_answers(tmp_path):
    opened = same_answers_from(tmp_path, build(), [tiny.image(0), tiny.image(1)], ["what?", "and here?"])
    assert isinstance(opened.processor, transformers.PaliGemmaProcessor)
