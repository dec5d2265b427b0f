"""Chats, texts taken as they are, questions about no picture: as stock takes the same messages, on every family."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.lvlm.inputs.chat import Question, chat_text, distribute_images
from fopru_graph.lvlm.inputs.prompt import build_prompt
from tests import tiny
from tests.lvlm.zoo import ZOO, everything, stock_answer

STEPS = 4
CHATML = (  # as most checkpoints have it; P is the family's placeholder
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}P{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
    {"role": "assistant", "content": "a street sign"},
]
TWO_TURNS = [*TURNS, {"role": "user", "content": "and <image>, is it like that?"}]
CHATS = {
    "system": (Question("what?", system="be brief"), 1),
    "history": (Question("are you sure?", messages=TURNS), 1),
    "two images in two turns": (Question(messages=TWO_TURNS, system="look well"), 2),
    "text only": (Question("what is two and two?"), 0),
    "as it is": (Question("look at P and say", template="none"), 1),
}


def as_parts(question):
    """The messages of a question as transformers takes them, written here by hand."""

    def parts(content):
        if not isinstance(content, str):
            return content
        pieces = content.split("<image>")
        texts = [[{"type": "text", "text": piece}] if piece else [] for piece in pieces]
        return [part for i, text in enumerate(texts) for part in ([{"type": "image"}] if i else []) + text]

    turns = [{"role": turn["role"], "content": parts(turn["content"])} for turn in question.messages]
    if question.system:
        turns.insert(0, {"role": "system", "content": parts(question.system)})
    if question.text:
        named = any(part["type"] == "image" for turn in turns for part in turn["content"])
        ahead = [{"type": "image"}] if "two" not in question.text and not named else []
        turns.append({"role": "user", "content": ahead + parts(question.text)})
    return turns


@pytest.fixture(scope="module", params=ZOO)
def row(request):
    return ZOO[request.param]


@pytest.fixture(scope="module")
def family(row):
    family = row.build("sdpa")
    family.processor.chat_template = CHATML.replace("P", family.placeholder)
    return family


def asked(family, question):
    return (
        Question(question.text.replace("P", family.placeholder), template="none") if "P" in question.text else question
    )


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_is_written_and_answered_as_stock_does(row, family, chat):
    question, count = CHATS[chat]
    question = asked(family, question)
    if question.template == "chat":
        stock = family.processor.apply_chat_template(as_parts(question), tokenize=False, add_generation_prompt=True)
        assert chat_text(family, question, count) == stock
    images = [tiny.image(i, *row.sizes[0]) for i in range(count)]
    tokens = everything(family, images) if images else None
    ids, _ = stock_answer(row, family, [question], images, STEPS)
    answer = generate(family, tokens, [question], max_new_tokens=STEPS)
    assert [list(tokens) for tokens in answer.token_ids] == ids
    assert answer.prompts == (question.last,)


def test_a_batch_may_hold_a_question_about_no_picture(family, row):
    images = [tiny.image(0, *row.sizes[0])]
    batch = generate(family, everything(family, images), ["<image> what?", "and you?"], max_new_tokens=STEPS)
    alone = generate(family, None, ["and you?"], max_new_tokens=STEPS)
    assert batch.token_ids[1] == alone.token_ids[0]
    assert alone.projected == 0 and alone.kept == ()


def test_a_stop_string_ends_the_answer_as_in_stock(family, row, monkeypatch):
    """A token is a letter here; the string is what two tokens of the answer say."""
    images, tokenizer = [tiny.image(i, *row.sizes[0]) for i in range(2)], family.processor.tokenizer
    letters = set(tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False).input_ids)
    others = sorted(set(range(family.model.get_input_embeddings().num_embeddings)) - letters)
    monkeypatch.setattr(family.model, "generation_config", GenerationConfig(pad_token_id=0, suppress_tokens=others))
    stop = generate(family, everything(family, images[:1]), ["what?"], max_new_tokens=12).texts[0][3:5]
    options = {"stop_strings": [stop], "tokenizer": tokenizer}
    for prompts in (["what?"], ["what?", "a longer question"]):
        given = images[: len(prompts)]
        ids, _ = stock_answer(row, family, prompts, given, 12, **options)
        answer = generate(family, everything(family, given), prompts, max_new_tokens=12, stop=[stop])
        lengths = [len(sample) for sample in answer.token_ids]
        # Without a stop token stock goes on with a sample that has ended, until all have.
        assert [list(sample) for sample in answer.token_ids] == [ids[i][: lengths[i]] for i in range(len(ids))]
        assert max(lengths) == len(ids[0]) and lengths[0] < 12
        assert not any(stop in text for text in answer.texts)


@pytest.mark.parametrize("settings", [{"top_p": 0.5}, {"top_k": 3}, {"top_p": 0.9, "top_k": 5}], ids=str)
def test_what_is_drawn_is_what_stock_draws(row, family, settings):
    images = [tiny.image(0, *row.sizes[0])]
    for seed in (1, 2):
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": 2.0, **settings}
        ids, _ = stock_answer(row, family, ["what?"], images, STEPS, **options)
        ours = generate(family, everything(family, images), ["what?"], (), STEPS, 2.0, seed, **settings)
        assert [list(tokens) for tokens in ours.token_ids] == ids


def test_a_repetition_penalty_wins_over_the_checkpoints(row, family, monkeypatch):
    images = [tiny.image(i, *row.sizes[0]) for i in range(2)]
    prompts, tokens = ["what?", "a longer question"], everything(family, images)
    monkeypatch.setattr(family.model.generation_config, "repetition_penalty", 1.1)
    seen = set()
    for penalty in (5.0, 0.3):
        ids, _ = stock_answer(row, family, prompts, images, 8, repetition_penalty=penalty)
        ours = generate(family, tokens, prompts, max_new_tokens=8, repetition_penalty=penalty)
        assert [list(tokens) for tokens in ours.token_ids] == ids
        seen.add(ours.token_ids)
    assert len(seen) == 2


def test_stock_generate_takes_the_same_penalty():
    family = tiny.llava(seed=4)
    ours = generate(family, everything(family, [tiny.image(0)]), ["x"], max_new_tokens=8, repetition_penalty=1.7)
    assert stock_generate(family, [tiny.image(0)], "x", 8, repetition_penalty=1.7).token_ids == ours.token_ids


def test_logprobs_are_those_of_the_tokens_and_of_the_model_itself():
    family, images = tiny.llava(seed=5), [tiny.image(0), tiny.image(1)]
    prompts = ["x", "longer than that"]
    logits = []
    free = generate(family, everything(family, images), prompts, max_new_tokens=4)
    family.model.generation_config.eos_token_id = free.token_ids[1][1]
    answer = generate(
        family, everything(family, images), prompts, max_new_tokens=4, repetition_penalty=1.3, logprobs=True,
        on_step=lambda _ids, row: logits.append(row.clone()),
    )  # fmt: skip
    for sample, (ids, given) in enumerate(zip(answer.token_ids, answer.logprobs, strict=True)):
        expected = [torch.log_softmax(logits[i][sample], -1)[token].item() for i, token in enumerate(ids)]
        assert given == pytest.approx(expected) and len(given) == len(ids)
    assert answer.report()["logprobs"] == [list(sample) for sample in answer.logprobs]
    assert "logprobs" not in free.report()


def test_the_next_turn_runs_only_what_is_new_of_the_chat():
    family = tiny.llava(seed=6)
    family.processor.chat_template = CHATML.replace("P", "<image>")
    tokens = everything(family, [tiny.image(0)])
    first = generate(family, tokens, [Question("what is it?")], max_new_tokens=6)
    length = first.kv_lengths[0]
    turns = [{"role": "user", "content": "<image>what is it?"}, {"role": "assistant", "content": first.texts[0]}]
    following = Question("are you sure?", messages=turns)
    second = generate(family, tokens, [following], max_new_tokens=6)
    fresh = generate(family, everything(family, [tiny.image(0)]), [following], max_new_tokens=6)
    assert second.token_ids == fresh.token_ids and fresh.reused == 0
    assert second.reused >= length - 6  # the prompt at least; the answer too where its text gives the same tokens


REFUSED = {
    "no picture named": ({"messages": TURNS[1:], "text": "what?"}, 1, "no turn of messages says where"),
    "more pictures named": ({"messages": TWO_TURNS}, 3, r"3 image\(s\) do not fit 1 prompt\(s\) with 2"),
    "text as it is without a marker": ({"text": "look", "template": "none"}, 1, "template: none says where"),
    "a picture for none": ({"text": "<image>"}, 0, "0 image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pictures_that_do_not_fit_the_turns_are_refused(case):
    given, images, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        distribute_images(tiny.llava(), [Question(**given)], images)


MALFORMED = {
    "a text": ({"messages": ["hello"]}, r"messages\[0\] is no turn"),
    "no role": ({"messages": [{"content": "hello"}]}, r"messages\[0\] is no turn"),
    "no content": ({"messages": [{"role": "user"}]}, r"messages\[0\].content is None"),
    "unknown part": (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        r"messages\[0\].content\[0\] .*neither an image nor a text",
    ),
    "a picture in a part": (
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "a.png"}]}]},
        r"messages\[0\].content\[0\] has 'url'",
    ),
    "nothing asked": ({}, "nothing is asked"),
    "the assistant is last": ({"messages": TURNS}, "the last of 2 messages is of 'assistant'"),
    "a system in a text as it is": ({"text": "x", "system": "y", "template": "none"}, "template is none"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_chat_is_refused_with_its_place(case):
    given, message = MALFORMED[case]
    with pytest.raises(UserError, match=message) as refused:
        Question(**given)
    assert refused.value.hint and "\n" not in refused.value.message


def test_a_checkpoint_without_a_template_takes_one_question():
    with pytest.raises(UserError, match="no chat template") as refused:
        build_prompt(tiny.llava(), [Question("x", system="y")], everything(tiny.llava(), [tiny.image(0)]))
    assert "template: none" in refused.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.0, "temperature": 1.0}, "top_p cannot be 0.0"),
        ({"top_p": 2.0, "temperature": 1.0}, "top_p cannot be 2.0"),
        ({"top_k": 0, "temperature": 1.0}, "top_k cannot be 0"),
        ({"top_p": 0.9}, "changes nothing at temperature 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty cannot be 0.0"),
        ({"stop": ["", "x"]}, "stop cannot be"),
        ({"max_new_tokens": 0}, "max_new_tokens cannot be 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(UserError, match=message) as refused:
        generate(tiny.llava(), None, ["x"], **settings)
    assert refused.value.hint


def test_a_system_that_the_template_refuses_is_told_as_its_sentence():
    family = tiny.llava()
    family.processor.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML.replace("P", "<image>")
    )
    with pytest.raises(UserError, match="fails on turns of system, user: System role not supported") as refused:
        chat_text(family, Question("x", system="y"), 0)
    assert "leave out" in refused.value.hint
