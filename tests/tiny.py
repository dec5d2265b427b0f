"""Tiny random LLaVA models, tokenizers and pictures for tests: no files, no network."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
import transformers

from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.llava_next import LlavaNext
from fopru_graph.lvlm.loading.presets import byte_tokenizer
from fopru_graph.values import Image

IMAGE_ID = 4
TEXTS = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}


def llava(
    text: str = "llama",
    *,
    layers: int = 5,
    heads: int = 4,
    kv_heads: int = 2,
    grid: tuple[int, int] = (4, 4),
    vision_layers: int = 4,
    vision_feature_layer: int | list[int] = -2,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    sliding_window: int | None = None,
    seed: int = 0,
    anyres: bool = False,
) -> Llava:
    """A LLaVA of one to two layers' thickness with weights large enough that attention is far from uniform.

    ``anyres`` makes it a LLaVA-1.6, whose pictures are cut into up to 2 × 2 or 1 × 3 tiles.
    """
    torch.manual_seed(seed)
    patch = 8
    if grid[0] != grid[1]:
        raise ValueError("CLIP's position table is square")
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=grid[0] * patch,
        patch_size=patch,
        projection_dim=16,
    )
    options = {}
    if text == "mistral":
        options = {"sliding_window": sliding_window}
    elif text == "qwen3":
        options = {"head_dim": 8}
    elif sliding_window is not None:  # Qwen2's own rule: the layers from the third on have the window
        options = {"sliding_window": sliding_window, "use_sliding_window": True, "max_window_layers": 2}
    language = TEXTS[text](
        vocab_size=320,
        hidden_size=heads * 8,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **options,
    )
    width = len(vision_feature_layer) if isinstance(vision_feature_layer, list) else 1
    side = grid[0] * patch
    pinpoints = [[side * h, side * w] for h, w in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
    kinds = (
        (transformers.LlavaNextConfig, transformers.LlavaNextForConditionalGeneration, LlavaNext)
        if anyres
        else (transformers.LlavaConfig, transformers.LlavaForConditionalGeneration, Llava)
    )
    config = kinds[0](
        vision_config=vision,
        text_config=language,
        image_token_id=IMAGE_ID,
        image_seq_length=grid[0] * grid[1],
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy="default",
        **({"image_grid_pinpoints": pinpoints} if anyres else {}),
    )
    model = kinds[1]._from_config(config, attn_implementation=attention)
    assert width == 1 or model.model.multi_modal_projector.linear_1.in_features == width * 32
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    generator = enlarge(model, seed)
    if anyres:  # a vector, so not drawn above
        model.model.image_newline.data.normal_(0, 0.5, generator=generator)
    size = {"height": side, "width": side}
    images = {"size": size, "do_center_crop": False, "crop_size": size}
    options = {
        "tokenizer": byte_tokenizer(),
        "patch_size": patch,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    if anyres:
        preparing = transformers.LlavaNextImageProcessorPil(**images, image_grid_pinpoints=pinpoints)
        processor = transformers.LlavaNextProcessor(image_processor=preparing, **options)
    else:
        processor = transformers.LlavaProcessor(image_processor=transformers.CLIPImageProcessorPil(**images), **options)
    return kinds[2](model.to(dtype).eval(), processor)


def enlarge(model: torch.nn.Module, seed: int) -> torch.Generator:
    """Draw all matrices anew, so large that attention is far from uniform; returns the generator for what is left."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
        elif parameter.ndim > 2:
            parameter.data.normal_(0, 0.1, generator=generator)
    return generator


def image(seed: int = 0, width: int = 48, height: int = 40) -> Image:
    """A picture of coarse noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image(PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC), f"noise-{seed}")
