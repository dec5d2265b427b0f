"""Idefics3 and SmolVLM: a SigLIP tower, Llama, tiles of 8 × 8 patches of which 2 × 2 or 4 × 4 become one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.idefics import Idefics3, SmolVLM
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, SIGLIP, Row, finish, parts, prepared_inputs

SIDE = 64
MARKERS = (
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)
TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% else %}<{{ c['type'] }}>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3(attention: str = "sdpa", seed: int = 80) -> Idefics3:
    """A tiny Idefics3: 16 visual tokens a tile, up to 3 × 3 tiles and one of the whole."""
    config = transformers.Idefics3Config(
        vision_config=SIGLIP | {"image_size": SIDE, "patch_size": 8},
        text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE_ID,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    model = finish(transformers.Idefics3ForConditionalGeneration, config, attention, seed)
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    return Idefics3(model, parts(images, *MARKERS, template=TEMPLATE))


def smolvlm(attention: str = "sdpa", seed: int = 81) -> SmolVLM:
    """A tiny SmolVLM: 4 visual tokens a tile, up to 4 × 4 tiles and one of the whole; frames of 64 pixels."""
    config = transformers.SmolVLMConfig(
        vision_config=SIGLIP | {"image_size": SIDE, "patch_size": 8},
        text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE_ID,
        scale_factor=4,
        tie_word_embeddings=False,
    )
    model = finish(transformers.SmolVLMForConditionalGeneration, config, attention, seed)
    images = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    return SmolVLM(model, parts(images, *MARKERS, "<video>", template=TEMPLATE))


def inputs(family: Idefics3, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: tiles of all pictures, those with fewer filled up with empty ones."""
    return prepared_inputs(family, images)


# Pictures are enlarged to the longest edge: nine (sixteen) tiles, then fewer, wide and tall.
SIZES = ((64, 64), (120, 40), (40, 90), (300, 20))
ROWS = {"idefics3": Row(idefics3, inputs, sizes=SIZES), "smolvlm": Row(smolvlm, inputs, sizes=SIZES)}
