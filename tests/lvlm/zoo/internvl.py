"""InternVL: a tower with a CLS token, Qwen2, up to four tiles of 8 × 8 patches and a thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.internvl import InternVL
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, Row, finish, parts, prepared_inputs

SIDE = 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 70, text: Any = transformers.Qwen2Config, **options: Any) -> InternVL:
    """A tiny InternVL; ``options`` go into its configuration."""
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=[SIDE, SIDE],
            patch_size=[8, 8],
            layer_scale_init_value=1.0,
        ),
        text_config=text(**LANGUAGE),
        image_token_id=IMAGE_ID,
        image_seq_length=16,
        tie_word_embeddings=False,
        **options,
    )
    model = finish(transformers.InternVLForConditionalGeneration, config, attention, seed)
    images = transformers.GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=4)
    return InternVL(model, parts(images, "<img>", "</img>", "<|im_start|>", "<|im_end|>", template=TEMPLATE))


def inputs(family: InternVL, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: all tiles of all pictures."""
    return prepared_inputs(family, images)


# Four tiles and a thumbnail, two of them, three, and a single tile.
ROWS = {"internvl": Row(build, inputs, sizes=((128, 128), (130, 64), (40, 110), (30, 30)))}
