"""LLaVA-OneVision: SigLIP, Qwen2, up to 2 × 2 or 1 × 3 tiles of 4 × 4 patches; three tiles' worth are shrunk to two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.llava_onevision import LlavaOnevision
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, SIGLIP, Row, finish, parts

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% for c in m['content'] if c['type'] == 'image' %}<image>{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}\n{{ c['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(attention: str = "sdpa", ratio: str = "anyres_max_2", size: int = 56, seed: int = 60) -> LlavaOnevision:
    """A tiny LLaVA-OneVision; ``size`` pixels a tile in patches of 14."""
    pinpoints = [[size * h, size * w] for h, w in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**SIGLIP | {"image_size": size}, vision_use_head=False),
        text_config=transformers.Qwen2Config(**LANGUAGE),
        image_token_index=IMAGE_ID,
        video_token_index=5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio=ratio,
    )
    model = finish(transformers.LlavaOnevisionForConditionalGeneration, config, attention, seed)
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": size, "width": size}, image_grid_pinpoints=pinpoints, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaOnevision(model, parts(images, "<video>", "<|im_start|>", "<|im_end|>", template=TEMPLATE))


def inputs(family: LlavaOnevision, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs, tiles padded to the largest number as its processor pads them."""
    batch = family.processor.image_processor([image.picture for image in images], return_tensors="pt")
    return {name: batch[name] for name in ("pixel_values", "image_sizes", "batch_num_images")}


# One tile, two, four of which the model makes fewer rows, and a tall one with padding that is taken away.
ROWS = {"llava_onevision": Row(build, inputs, sizes=((112, 112), (120, 50), (40, 90), (50, 50)))}
