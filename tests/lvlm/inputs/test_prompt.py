"""Shortened prompts against the stock processor; streaming against decoding at once."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.sampling import TextStream
from fopru_graph.lvlm.inputs.chat import Question, distribute_images
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.values import Selection
from tests import tiny


@pytest.fixture(scope="module")
def family():
    return tiny.llava()


@pytest.mark.parametrize(
    ("prompts", "images", "expected"),
    [
        (["a"], 0, [0]),
        (["a"], 3, [3]),
        (["a", "b"], 2, [1, 1]),
        (["<image> a <image>", "b"], 2, [2, 0]),
    ],
)
def test_images_are_shared_out(family, prompts, images, expected):
    assert distribute_images(family, [*map(Question, prompts)], images) == expected


@pytest.mark.parametrize(("prompts", "images"), [(["a", "b"], 3), (["<image>"], 2), (["<image>", "b"], 2)])
def test_images_that_do_not_fit_are_refused(family, prompts, images):
    with pytest.raises(UserError, match="do not fit"):
        distribute_images(family, [*map(Question, prompts)], images)


def test_all_tokens_give_the_stock_prompt_and_fewer_give_fewer_placeholders(family):
    features = family.encode([tiny.image(0), tiny.image(1)])
    prompts = ["one <image>?", "and a longer one <image>"]
    stock = family.processor(
        text=["USER: one <image>? ASSISTANT:", "USER: and a longer one <image> ASSISTANT:"],
        images=[tiny.image(i).picture for i in (0, 1)],
        padding=True,
        return_tensors="pt",
    )
    whole = build_prompt(family, prompts, family.project(features, None))
    assert torch.equal(whole.input_ids, stock.input_ids)
    assert torch.equal(whole.attention_mask, stock.attention_mask)
    indices = (torch.tensor([7, 2]), torch.tensor([1, 5, 9]))
    tokens = family.project(features, Selection(indices, features.counts))
    short = build_prompt(family, prompts, tokens)
    for row, ids, kept in zip(short.input_ids, stock.input_ids, (2, 3), strict=True):
        text = [t for t in ids.tolist() if t not in (0, tiny.IMAGE_ID)]
        assert [t for t in row.tolist() if t not in (0, tiny.IMAGE_ID)] == text
        assert row.tolist().count(tiny.IMAGE_ID) == kept
    # Without Reorder the tokens stand in the order of the selection: 7 before 2.
    everything = family.project(features, None)
    assert torch.allclose(tokens.embeddings[0], everything.embeddings[0][[7, 2]], atol=1e-6)
    assert torch.equal(short.embeds[0][short.visual[0]], tokens.embeddings[0])
    assert short.embedding_index[0][short.visual[0]].tolist() == [0, 1]
    assert short.embedding_index[1][short.visual[1]].tolist() == [2, 3, 4]


def test_a_selection_of_other_tiles_is_refused(family):
    features = family.encode([tiny.image(0)])
    with pytest.raises(UserError, match="selection was made from"):
        family.project(features, Selection((torch.tensor([0]),), (99,)))


def test_a_prompt_without_images_works(family):
    tokens = family.project(family.encode([tiny.image()]), Selection((torch.tensor([3]),), (16,)))
    prompt = build_prompt(family, ["<image> hello"], tokens)
    assert int(prompt.visual.sum()) == 1


def test_streamed_pieces_join_to_the_decoded_text(family):
    tokenizer = family.processor.tokenizer
    pieces: list[str] = []
    stream = TextStream(family, pieces.append)
    text = "naïve – 日本 🙂 ok"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for token in ids:
        stream.put(token)
        assert "\ufffd" not in "".join(pieces)
    stream.end()
    assert "".join(pieces) == text
    assert len(pieces) > 5


def test_a_stream_shows_nothing_of_a_string_that_ends_the_answer_nor_holds_back_what_only_looks_like_it(family):
    pieces = []
    stream = TextStream(family, pieces.append, ["<end>", "nn"])
    for token in family.processor.tokenizer("a <en b <end> c", add_special_tokens=False).input_ids:
        stream.put(token)
        assert "<end" not in "".join(pieces)
    stream.end()
    assert "".join(pieces) == "a <en b "
