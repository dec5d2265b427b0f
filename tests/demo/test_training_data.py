"""Packed training sequences are exactly the prompts that the finished model is asked."""

from __future__ import annotations

import torch

from fopru_graph.demo.architecture import GRID, build_config, build_model, build_processor, build_tokenizer, vocabulary
from fopru_graph.demo.batches import BLOCK, IGNORED, Packer, accuracy_by_kind
from fopru_graph.demo.questions import all_kinds
from fopru_graph.demo.scenes import sample_scene, scene_rng


def test_every_question_and_answer_is_in_the_vocabulary():
    tokenizer = build_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    for i in range(300):
        rng = scene_rng("train", i)
        for question in all_kinds(sample_scene(rng), rng):
            ids = tokenizer(f"{question.text} {question.answer}", add_special_tokens=False).input_ids
            assert unknown not in ids
            assert len(tokenizer(f"{question.text} assistant : {question.answer} </s>").input_ids) <= BLOCK + 1
    assert len(tokenizer) == len(vocabulary()) == build_config().text_config.vocab_size


def test_a_packed_block_is_the_chat_templates_prompt():
    processor = build_processor()
    packer = Packer(processor.tokenizer, GRID, per_scene=4)
    batch = packer.batch("validation", 0, 3, pixels=False)
    for ids, targets in zip(batch.input_ids, batch.targets, strict=True):
        for k in range(4):
            start = packer.prefix_length + k * BLOCK
            block = ids[start : start + BLOCK].tolist()
            answers = targets[start : start + BLOCK]
            first = int((answers != IGNORED).nonzero()[0])  # the place that must produce the answer's first token
            text = processor.tokenizer.decode(block[: first - 1])
            message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
            asked = processor.tokenizer(processor.apply_chat_template(message, add_generation_prompt=True)).input_ids
            place = asked.index(packer.image_id)
            expanded = [*asked[:place], *[packer.image_id] * GRID**2, *asked[place + 1 :]]
            assert expanded == [*ids[: packer.prefix_length].tolist(), *block[: first + 1]]


def test_packing_changes_no_logit():
    torch.manual_seed(0)
    model = build_model().eval()
    packer = Packer(build_tokenizer(), 8, per_scene=3)
    batch = packer.batch("validation", 1, 2, pixels=False)
    embeds = model.get_input_embeddings()(batch.input_ids)
    with torch.inference_mode():
        packed = model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=packer.attention_mask().expand(2, -1, -1, -1),
            position_ids=packer.position_ids().expand(2, -1),
        ).last_hidden_state
        for k in range(3):
            block = slice(packer.prefix_length + k * BLOCK, packer.prefix_length + (k + 1) * BLOCK)
            alone = torch.cat([embeds[:, : packer.prefix_length], embeds[:, block]], 1)
            hidden = model.model.language_model(inputs_embeds=alone).last_hidden_state
            assert torch.allclose(packed[:, block], hidden[:, packer.prefix_length :], atol=1e-4)


def test_a_question_counts_as_right_only_with_its_whole_answer():
    packer = Packer(build_tokenizer(), 8, per_scene=6)
    batch = packer.batch("validation", 2, 8, pixels=False)
    perfect = accuracy_by_kind(batch.targets, batch, packer.prefix_length)
    assert all(all(flags) for flags in perfect.values())
    spoilt = batch.targets.clone()
    first = (spoilt != IGNORED).nonzero()[0]
    spoilt[tuple(first)] += 1
    wrong = accuracy_by_kind(spoilt, batch, packer.prefix_length)
    assert sum(not flag for flags in wrong.values() for flag in flags) == 1
