"""Gemma 3: a SigLIP tower of 8 × 8 patches averaged to 4 × 4 tokens; layers of a short sliding window and full ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.gemma3 import Gemma3
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, SIGLIP, Row, finish, parts, prepared_inputs

SIDE = 64
KINDS = ("sliding", "full", "sliding", "sliding", "full")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MARKERS = ("<start_of_image>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>")


def build(
    attention: str = "sdpa", seed: int = 90, window: int = 24, image_id: int = IMAGE_ID, kinds: Sequence[str] = KINDS
) -> Gemma3:
    """A tiny Gemma 3 whose window is shorter than its prompts and longer than an image."""
    config = transformers.Gemma3Config(
        vision_config=SIGLIP | {"image_size": SIDE, "patch_size": 8, "vision_use_head": False},
        text_config=LANGUAGE
        | {"head_dim": 8, "sliding_window": window, "layer_types": [f"{kind}_attention" for kind in kinds]},
        image_token_index=image_id,
        mm_tokens_per_image=16,
    )
    model = finish(transformers.Gemma3ForConditionalGeneration, config, attention, seed)
    images = transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = parts(images, *MARKERS, template=TEMPLATE)
    tokenizer = processor.tokenizer
    tokenizer.boi_token, tokenizer.eoi_token = MARKERS[:2]
    return Gemma3(model, processor)


def inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: one tile a picture."""
    return prepared_inputs(family, images)


def types(family: Family, prompt: Prompt) -> dict[str, Any]:
    """The token types of a prompt, as the stock processor gives them: 1 for the tokens of images."""
    return {"token_type_ids": (prompt.input_ids == family.image_token_id).long()}


ROWS = {"gemma3": Row(build, inputs, types)}
