"""vLLM: the parts of a chat request and the offline data have the documented keys and shapes, and mean the answer."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.chat import Question
from fopru_graph.serving import vllm
from fopru_graph.serving.engines import VLLM
from fopru_graph.serving.handover import hand_over
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.serving.engine import STEPS, answer, as_vllm_reads, filled, handed_over, kept

PLAIN = ("llava", "llava_next", "llava_onevision", "internvl")  # and PaliGemma, whose prompt vLLM writes
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
TWO = "<image> or <image>, which is it?"


def parts_of(request: bytes):
    """The content parts of the only message of a chat request."""
    (message,) = json.loads(request)["messages"]
    assert message["role"] == "user"
    return message["content"]


def images_of(request: bytes):
    return [part["image_embeds"] for part in parts_of(request) if part["type"] == "image_embeds"]


def test_this_room_knows_every_family_that_vllm_takes():
    assert {*PLAIN, *QWEN, "paligemma"} == set(VLLM.takes)


@pytest.mark.parametrize("name", PLAIN)
def test_rows_for_repeated_placeholders_counted_from_0_are_the_pipelines_answer(family_of, name):
    family = family_of(name)
    tokens = kept(family, count=2)
    tensors = safetensors.torch.load(vllm.offline(handed_over(family, tokens, TWO)))
    assert sorted(tensors) == ["image_embeds.0", "image_embeds.1", "prompt_token_ids"]
    rows = [tensors["image_embeds.0"], tensors["image_embeds.1"]]
    assert [tuple(part.shape) for part in rows] == [tuple(part.shape) for part in tokens.embeddings]
    ids = filled(family, tensors["prompt_token_ids"].tolist(), rows)
    told = answer(family, ids, torch.cat(rows), torch.arange(len(ids))[None])
    assert told == generate(family, tokens, [TWO], max_new_tokens=STEPS).token_ids[0]


@pytest.mark.parametrize("name", ["llava_onevision", "internvl"])
def test_a_chat_request_has_a_part_of_the_same_rows_for_each_picture(family_of, name):
    family = family_of(name)
    tokens = kept(family, count=2)
    encoded = images_of(vllm.chat_request(handed_over(family, tokens, TWO)))
    assert len(encoded) == 2
    for text, rows in zip(encoded, tokens.embeddings, strict=True):
        assert torch.equal(as_vllm_reads(text), rows)


def test_vllm_writes_paligemmas_placeholders_so_the_prompt_is_the_question(family_of, tmp_path):
    family = family_of("paligemma")
    handover = handed_over(family, kept(family))
    (tmp_path / "file").write_bytes(vllm.offline(handover))
    with safe_open(tmp_path / "file", "pt") as file:
        assert list(file.keys()) == ["image_embeds.0"]
        assert file.metadata() == {
            "engine": "vllm", "model": "the/checkpoint", "positions": "renumbered", "prompt": "what?"
        }  # fmt: skip
    with pytest.raises(UserError, match="without one"):
        vllm.chat_request(handover)


@pytest.mark.parametrize("name", QWEN)
def test_qwens_rows_of_a_grid_get_the_positions_that_the_stock_rule_gives_it(family_of, name):
    family = family_of(name)
    handover = handed_over(family, kept(family, count=2), TWO, "row")
    tensors = safetensors.torch.load(vllm.offline(handover))
    assert set(tensors) == {"image_embeds", "image_grid_thw", "prompt_token_ids"}
    rows, grids = tensors["image_embeds"], tensors["image_grid_thw"]
    assert grids.dtype == torch.int64 and grids.shape == (2, 3)
    sizes = (grids.prod(1) // family.merge_side**2).tolist()  # as vLLM splits the rows
    assert sizes == list(handover.tokens.counts) and len(rows) == sum(sizes)
    ids = torch.tensor([filled(family, tensors["prompt_token_ids"].tolist(), rows.split(sizes))])
    assert torch.equal(ids[0], handover.input_ids)
    stock, _ = family.model.model.get_rope_index(
        input_ids=ids, mm_token_type_ids=(ids == family.image_token_id).int(), image_grid_thw=grids
    )
    assert torch.equal(stock[:, 0], handover.positions)


@pytest.mark.parametrize("name", QWEN)
def test_a_whole_picture_of_qwen_keeps_its_grid_and_its_answer(family_of, name):
    family = family_of(name)
    tokens = kept(family, ratio=1)
    handover = handed_over(family, tokens)
    (payload,) = images_of(vllm.chat_request(handover))
    assert set(payload) == {"image_embeds", "image_grid_thw"}
    rows, grid = as_vllm_reads(payload["image_embeds"]), as_vllm_reads(payload["image_grid_thw"])
    frames, high, wide = tokens.grids[0]
    assert grid.tolist() == [frames, high * family.merge_side, wide * family.merge_side]
    width, *deepstack = rows.split(family.language_model.config.hidden_size, 1)
    assert len(deepstack) == (2 if name == "qwen3_vl" else 0)
    told = answer(family, handover.input_ids.tolist(), width, handover.derived, deepstack)
    assert told == generate(family, tokens, ["what?"], max_new_tokens=STEPS).token_ids[0]


@pytest.mark.parametrize("name", QWEN)
def test_places_that_are_no_grid_are_refused_for_qwen(family_of, name):
    family = family_of(name)
    with pytest.raises(UserError, match="by a whole grid") as refused:
        vllm.chat_request(handed_over(family, kept(family)))
    assert "positions: row" in refused.value.hint


@pytest.mark.parametrize("positions", ["original", "rebased"])
def test_places_with_gaps_are_refused_where_vllm_counts(family_of, positions):
    family = family_of("llava")
    with pytest.raises(UserError, match=f"these have {positions} positions"):
        vllm.offline(handed_over(family, kept(family), positions=positions))


def test_a_row_is_refused_where_positions_have_one_axis(family_of):
    family = family_of("llava")
    with pytest.raises(UserError, match="one axis"):
        handed_over(family, kept(family), positions="row")


@pytest.mark.parametrize("name", sorted(VLLM.refuses))
def test_other_families_are_refused_with_the_reason(family_of, name):
    family = family_of(name)
    with pytest.raises(UserError, match=VLLM.refuses[name]):
        vllm.offline(handed_over(family, kept(family)))


def test_messages_keep_their_turns_and_parts_stand_where_pictures_do(family_of):
    family = family_of("llava_onevision")
    asked = {"role": "user", "content": [{"type": "text", "text": "see "}, {"type": "image"}]}
    question = Question("and this <image>?", "be brief", [asked, {"role": "assistant", "content": "yes"}])
    request = vllm.chat_request(hand_over(ModelHandle("m", family), kept(family, count=2), question))
    body = json.loads(request)
    assert body["model"] == "m"
    kinds = [(m["role"], [part.get("text", part["type"]) for part in m["content"]]) for m in body["messages"]]
    assert kinds == [
        ("system", ["be brief"]),
        ("user", ["see ", "image_embeds"]),
        ("assistant", ["yes"]),
        ("user", ["and this ", "image_embeds", "?"]),
    ]


def test_a_first_token_that_the_template_does_not_write_is_asked_for(family_of):
    family = family_of("llava_onevision")
    handover = handed_over(family, kept(family))
    assert handover.text_ids[0] == family.processor.tokenizer.bos_token_id
    assert json.loads(vllm.chat_request(handover))["add_special_tokens"] is True
    template = "{{ bos_token }}" + family.processor.chat_template
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family.processor, "chat_template", template)
        written = handed_over(family, kept(family))
    assert written.text_ids == handover.text_ids
    assert "add_special_tokens" not in json.loads(vllm.chat_request(written))


def test_a_prompt_without_the_template_is_no_chat_request(family_of):
    family = family_of("llava_onevision")
    question = Question("<image> what?", template="none")
    with pytest.raises(UserError, match="goes without one"):
        vllm.chat_request(hand_over(ModelHandle("m", family), kept(family), question))


def test_a_saved_tensor_holds_its_rows_and_not_those_that_it_is_a_view_of(family_of):
    family = family_of("llava_onevision")
    tokens = kept(family)
    everything = torch.zeros(100_000, tokens.embeddings[0].shape[1])
    everything[: len(tokens.embeddings[0])] = tokens.embeddings[0]
    views = type(tokens)((everything[: len(tokens.embeddings[0])],), tokens.origin, tokens.encoded,
                         tokens.keep_positions, placeholders=tokens.placeholders, newlines=tokens.newlines)  # fmt: skip
    assert len(vllm.chat_request(handed_over(family, views))) < 2 * views.embeddings[0].nbytes + 5_000


def test_a_half_precision_model_hands_over_its_own_type():
    family = tiny.llava(dtype=torch.bfloat16)
    tensors = safetensors.torch.load(vllm.offline(handed_over(family, kept(family))))
    assert tensors["image_embeds.0"].dtype == torch.bfloat16
