"""Chat templates: what a question looks like in them, text kept as it is, and those that take text only."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.lvlm.inputs.chat import chat_text
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.processor import open_processor
from tests import tiny
from tests.lvlm.test_invariants import run
from tests.lvlm.zoo import ZOO, everything

PARTS = (  # LLaVA-1.5's: pictures, then texts
    "{% for m in messages %}{{ m['role'] | upper }}: "
    "{% for c in m['content'] if c['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
IN_PLACE = PARTS[: PARTS.index("{% for c")] + (
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
QUESTIONS = {  # with their parts: None for a picture
    "what?": (None, "what?"),
    "<image>\nwhat?": (None, "\nwhat?"),
    "what is\n\n<image> ?  ": ("what is\n\n", None, " ?  "),
    "  <image> or\t<image>, which?\n": ("  ", None, " or\t", None, ", which?\n"),
    "<image> <image>": (None, " ", None),
}


def pictures(question):
    return [tiny.image(i) for i in range(max(1, question.count("<image>")))]


@pytest.mark.parametrize("anyres", [False, True])
@pytest.mark.parametrize("template", [PARTS, IN_PLACE])
@pytest.mark.parametrize("question", QUESTIONS)
def test_text_around_images_is_what_the_stock_processor_makes_of_the_same_message(question, template, anyres):
    family = tiny.llava(anyres=anyres)
    family.processor.chat_template = template
    content = [{"type": "text", "text": p} if p else {"type": "image"} for p in QUESTIONS[question]]
    images = pictures(question)
    stock = family.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"images": [image.picture for image in images]},
    )
    assert torch.equal(build_prompt(family, [question], everything(family, images)).input_ids, stock["input_ids"])


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_a_template_text_is_kept_too(question):
    text = chat_text(tiny.llava(), question, len(pictures(question)))
    assert text == f"USER: {question if '<image>' in question else '<image>' + chr(10) + question} ASSISTANT:"


HEAD, TAIL = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n", "<|im_end|>\n{% endfor %}<|im_start|>assistant"
TEXT_ONLY = {
    "adds": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "<|im_start|>assistant",
    "prints": HEAD + "{{ m['content'] }}" + TAIL,
    "joins": HEAD + "{{ '' ~ m.content }}" + TAIL,
    "dumps": HEAD + "{{ m.content if m.content is string else m.content | tojson }}" + TAIL,
    "drops": HEAD + "{% if m['content'] is string %}{{ m['content'] }}{% endif %}" + TAIL,
    "refuses": HEAD + "{% if m['content'] is not string %}{{ raise_exception('text only') }}{% endif %}"
    "{{ m['content'] }}" + TAIL,
}


@pytest.mark.parametrize(
    ("name", "template"),
    [*(("internvl", kind) for kind in TEXT_ONLY), ("llava", "adds"), ("llava_onevision", "prints")],
)
def test_a_template_for_text_only_gets_the_placeholders_in_the_text(name, template):
    family = ZOO[name].build("sdpa")
    family.processor.chat_template = TEXT_ONLY[template]
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant"
    assert chat_text(family, "what?", 1) == asked.format("<image>\nwhat?")
    assert chat_text(family, "a <image>\n or <image> ?", 2) == asked.format("a <image>\n or <image> ?")
    generation, _ = run(family, everything(family, [tiny.image(0, 112, 112)]), ["what?"])
    assert generation.projected > 0


def test_both_arms_ask_alike_in_a_template_for_text_only():
    family = tiny.llava(seed=5)
    family.processor.chat_template = TEXT_ONLY["adds"]
    stock = stock_generate(family, [tiny.image()], "what <image> ?", max_new_tokens=5)
    ours, _ = run(family, everything(family, [tiny.image()]), ["what <image> ?"])
    assert ours.token_ids == stock.token_ids


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
        ("{{ messages[1]['content'] }}", "has no element 1"),
        ("{% for m in messages %}{{ m['content'] }}", "Unexpected end of template"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
        ({"tools": "{{ messages }}"}, "default"),
    ],
)
def test_a_template_that_fails_is_one_sentence(template, says):
    family = tiny.llava()
    family.processor.chat_template = template
    with pytest.raises(UserError, match="chat template fails.*" + says) as refused:
        chat_text(family, "what?", 1)
    assert "chat_template" in refused.value.hint and "\n" not in refused.value.message
    with pytest.raises(UserError, match="chat template fails"):
        stock_generate(family, [tiny.image()], "what?")


def test_a_template_that_only_the_tokenizer_has_is_used():
    """As in checkpoints whose tokenizer_config.json has it; several by name have a default."""
    family = tiny.llava()
    family.processor.chat_template, family.processor.tokenizer.chat_template = None, IN_PLACE
    assert chat_text(family, "a <image>", 1) == "USER: a <image> ASSISTANT:"
    family.processor.tokenizer.chat_template = {"default": TEXT_ONLY["adds"], "tools": "-"}
    assert chat_text(family, "a <image>", 1) == "<|im_start|>user\na <image><|im_end|>\n<|im_start|>assistant"


def test_named_templates_of_a_processor_made_of_its_parts(tmp_path):
    family = ZOO["internvl"].build("sdpa")
    tokenizer = family.processor.tokenizer
    tokenizer.chat_template = {"default": IN_PLACE, "tools": "-"}
    family.model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor = open_processor(str(tmp_path), {})
    assert chat_text(family, "a <image>", 1) == "USER: a <image> ASSISTANT:"
