"""The stock generate of every family inside `pruned`: its own tokens at ratio one, those of our loop below."""

from __future__ import annotations

import pytest
import torch

from fopru_graph import pruned
from fopru_graph.graph import NodeError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner
from tests.lvlm.test_invariants import fingerprint
from tests.lvlm.test_matrix import BATCHES, STEPS, pictures, tokens_of
from tests.lvlm.zoo import ZOO, everything


def call(row, family, batch):
    """What a stock processor would give for a batch, its prompts and its pictures."""
    prompts, count = BATCHES[batch]
    images = pictures(row, count)
    prompt = build_prompt(family, prompts, everything(family, images))
    inputs = {"input_ids": prompt.input_ids, "attention_mask": prompt.attention_mask}
    return inputs | row.stock(family, images) | row.extra(family, prompt), prompts, images


def stock_beams(model, inputs, options):
    """What the stock beam search gives, also inside a block."""
    return type(model).generate(model, **inputs, **options)


@pytest.mark.parametrize("batch", ["two images", "batch of two sizes"])
def test_at_ratio_one_it_is_stocks_answer_and_below_it_is_ours(row, family, batch):
    inputs, prompts, images = call(row, family, batch)
    options = {"max_new_tokens": STEPS, "do_sample": False}
    stock = family.model.generate(**inputs, **options)
    before, length = fingerprint(family), inputs["input_ids"].shape[1]  # its first run leaves hooks of transformers'
    with pruned(family.model, family.processor, "fopru_fastv", 1.0, **{"fastv.layer": row.first}) as seen:
        assert torch.equal(family.model.generate(**inputs, **options), stock)
        whole = seen.visual_tokens
        if batch != "two images":
            beams = options | {"num_beams": 2, "num_return_sequences": 2}
            assert torch.equal(family.model.generate(**inputs, **beams), stock_beams(family.model, inputs, beams))
            assert seen.visual_tokens == whole
    with pruned(family.model, family.processor, "fopru_fastv", 0.25, **{"fastv.layer": row.first}) as seen:
        ids = family.model.generate(**inputs, **options)
    pruners = [InLLMPruner(last_token_attention, row.first, 0.5)]
    ours = generate(family, tokens_of(family, images, RankPrune, 0.5), prompts, pruners, STEPS, loop="thin")
    assert torch.equal(ids[:, :length], inputs["input_ids"])
    assert ids[:, length:].tolist() == [*map(list, ours.token_ids)]
    assert seen.visual_tokens == ours.report()["visual_tokens"] and seen.visual_per_layer == ours.visual_per_layer
    assert (seen.kv_lengths, seen.kv_bytes) == (ours.kv_lengths, ours.kv_bytes)
    assert [*map(torch.Tensor.tolist, seen.kept)] == [*map(torch.Tensor.tolist, ours.kept)]
    assert seen.visual_tokens["final"] < seen.visual_tokens["kept"] < whole["final"] == whole["encoded"]
    assert fingerprint(family) == before and "generate" not in vars(family.model)


def test_pictures_that_onevision_gets_as_one_list_stay_whole():
    row = ZOO["llava_onevision"]
    family = row.build("sdpa")
    images, prompts = pictures(row, 2), ["<image> or <image> ?"]
    together = family.project(family.encode_together(images), None)
    batch = family.processor.image_processor([[image.picture for image in images]], return_tensors="pt")
    prompt = build_prompt(family, prompts, together)
    inputs = {"input_ids": prompt.input_ids, "attention_mask": prompt.attention_mask} | dict(batch)
    stock = family.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    with pruned(family.model, family.processor, ratio=1.0) as seen:
        assert torch.equal(family.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False), stock)
        assert seen.visual_tokens["encoded"] == sum(together.encoded)
        mixed = inputs | {"batch_num_images": torch.tensor([2, 1])}
        with pytest.raises(NodeError, match="some prompts of the batch have one picture and others several"):
            family.model.generate(**mixed)
        with pytest.raises(NodeError, match="image_sizes is missing"):
            family.model.generate(**inputs | {"image_sizes": None})


def test_tiles_of_idefics_have_their_places():
    row = ZOO["idefics3"]
    family = row.build("sdpa")
    inputs, _, images = call(row, family, "two images")
    ids = [inputs["input_ids"][0].tolist()]
    given, made = family.encode_prepared(inputs, ids), family.encode(images)
    assert [(t.tile_position, t.image, t.grid) for t in given.tiles] == [
        (t.tile_position, t.image, t.grid) for t in made.tiles
    ]
