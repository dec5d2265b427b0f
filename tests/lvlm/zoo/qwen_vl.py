"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: four tower layers, some in windows of 2 × 2 tokens, two DeepStack layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.qwen_vl import Qwen2VL, Qwen3VL, Qwen25VL
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, Row, finish, parts, prepared_inputs, tokenizer

SPECIAL = ("<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")
PATCH = 14
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><image><|vision_end|>"
    "{% elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _ids() -> dict[str, int]:
    names = ("video_token_id", "vision_start_token_id", "vision_end_token_id")
    known = tokenizer(*SPECIAL)
    return {"image_token_id": IMAGE_ID} | dict(zip(names, known.convert_tokens_to_ids(list(SPECIAL[:3])), strict=True))


def _language(**more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return LANGUAGE | {"rope_parameters": rope} | more


def _parts() -> Any:
    """Up to about sixty visual tokens a picture."""
    side = 2 * PATCH
    images = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * side**2, "longest_edge": 60 * side**2})
    return parts(images, *SPECIAL, template=TEMPLATE)


def qwen2(attention: str = "sdpa", seed: int = 90) -> Qwen2VL:
    """A tiny Qwen2-VL."""
    vision = {"depth": 4, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2, "patch_size": PATCH}
    config = transformers.Qwen2VLConfig(text_config=_language(), vision_config=vision, **_ids())
    return Qwen2VL(finish(transformers.Qwen2VLForConditionalGeneration, config, attention, seed), _parts())


def qwen25(attention: str = "sdpa", seed: int = 91, whole: Sequence[int] = (0, 2)) -> Qwen25VL:
    """A tiny Qwen2.5-VL; the layers ``whole`` see everything, the others windows of 4 × 4 patches."""
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": 64,
        "patch_size": PATCH,
        "window_size": 4 * PATCH,
        "fullatt_block_indexes": list(whole),
        "tokens_per_second": 25,
    }
    config = transformers.Qwen2_5_VLConfig(text_config=_language(), vision_config=vision, **_ids())
    return Qwen25VL(finish(transformers.Qwen2_5_VLForConditionalGeneration, config, attention, seed), _parts())


def qwen3(attention: str = "sdpa", seed: int = 92, deepstack: Sequence[int] = (0, 2)) -> Qwen3VL:
    """A tiny Qwen3-VL; the outputs of the tower layers ``deepstack`` go into the first language layers."""
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": 64,
        "patch_size": PATCH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": list(deepstack),
    }
    config = transformers.Qwen3VLConfig(text_config=_language(head_dim=8), vision_config=vision, **_ids())
    return Qwen3VL(finish(transformers.Qwen3VLForConditionalGeneration, config, attention, seed), _parts())


def inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: patches and grids of all pictures."""
    return prepared_inputs(family, images)


def kinds(_family: Family, prompt: Prompt) -> dict[str, Any]:
    """Which tokens are of pictures; the stock model numbers its positions by them."""
    return {"mm_token_type_ids": (prompt.embedding_index >= 0).int()}


# 16 tokens, a wide picture, a tall one, and one that does not fill its windows.
SIZES = ((112, 112), (150, 60), (60, 150), (90, 90))
BUILD = {"qwen2_vl": qwen2, "qwen2_5_vl": qwen25, "qwen3_vl": qwen3}
ROWS = {name: Row(build, inputs, kinds, SIZES) for name, build in BUILD.items()}
