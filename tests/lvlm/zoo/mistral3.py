"""Mistral 3: a Pixtral tower, pictures in their own shape, 2 × 2 patches become one token, a token ends each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.mistral3 import Mistral3
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, Row, finish, parts, prepared_inputs

LONGEST = 96
MARKERS = ("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[INST]"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}[/INST]{% endfor %}"
)


def build(
    attention: str = "sdpa", seed: int = 92, text: Any = transformers.MistralConfig, merge: int = 2, **options: Any
) -> Mistral3:
    """A tiny Mistral 3; ``options`` go into its configuration."""
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=LONGEST,
            patch_size=8,
        ),
        text_config=text(**LANGUAGE, head_dim=8),
        image_token_index=IMAGE_ID,
        spatial_merge_size=merge,
        tie_word_embeddings=False,
        **options,
    )
    model = finish(transformers.Mistral3ForConditionalGeneration, config, attention, seed)
    # As in a checkpoint, the image processor knows the tower's patches and not that they are merged.
    images = transformers.PixtralImageProcessorPil(size={"longest_edge": LONGEST}, patch_size={"height": 8, "width": 8})
    return Mistral3(model, parts(images, *MARKERS, template=TEMPLATE))


def inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: pictures padded to one size, and their own sizes."""
    return prepared_inputs(family, images)


# 4 × 4 tokens, 3 × 6 after shrinking to the longest edge, 6 × 3, and a narrow one of 6 × 1.
ROWS = {"mistral3": Row(build, inputs, sizes=((64, 64), (180, 80), (40, 90), (8, 96)))}
