"""Models of the paper's sizes with random weights, drawn on the device: timing needs neither training nor a download.

``random:llava-cpu`` and ``random:llava-next-cpu`` are small enough to be timed on one CPU core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import accelerate
import tokenizers
import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.progress import Progress, counted

PREFIX = "random:"
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_IMAGE_ID = _SPECIAL.index("<image>")
_CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_CLIP_S = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_STD = 0.02


def _llama(width: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


@dataclass(frozen=True)
class Preset:
    """The sizes of a model; an ``anyres`` model (LLaVA-1.6) cuts a picture into tiles of 336 pixels."""

    anyres: bool
    vision: dict[str, int]
    text: dict[str, int]


PRESETS = {
    "llava-cpu": Preset(False, _CLIP_S, _llama(768, 2048, 12, 12, 12, 8192)),
    "llava-next-cpu": Preset(True, _CLIP_S, _llama(768, 2048, 12, 12, 12, 8192)),
    "llava-1.5-7b": Preset(False, _CLIP_L, _llama(4096, 11008, 32, 32, 32, 32064)),
    "llava-1.6-7b": Preset(True, _CLIP_L, _llama(4096, 11008, 32, 32, 32, 32064)),
    "llava-1.6-13b": Preset(True, _CLIP_L, _llama(5120, 13824, 40, 40, 40, 32064)),
    "llava-next-8b": Preset(True, _CLIP_L, _llama(4096, 14336, 32, 32, 8, 128320)),
}


def find_preset(name: str) -> Preset:
    """The preset behind ``random:NAME``.

    Raises:
        UserError: there is no preset of this name.
    """
    preset = PRESETS.get(name.removeprefix(PREFIX))
    if preset is None:
        raise UserError(f"there is no preset {name!r}", "choose " + ", ".join(PREFIX + known for known in PRESETS))
    return preset


def preset_config(preset: Preset) -> Any:
    """The stock configuration of a preset."""
    vision = transformers.CLIPVisionConfig(**preset.vision, image_size=336, patch_size=14, projection_dim=768)
    text = transformers.LlamaConfig(
        **preset.text, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    options: dict[str, Any] = {"image_grid_pinpoints": _PINPOINTS} if preset.anyres else {}
    kind = transformers.LlavaNextConfig if preset.anyres else transformers.LlavaConfig
    return kind(
        vision_config=vision,
        text_config=text,
        image_token_id=_IMAGE_ID,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        **options,
    )


def random_model(
    config: Any,
    auto_class: str,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    progress: Progress | None = None,
) -> Any:
    """A stock model whose weights are drawn on the device, with a fixed seed, so that they exist only once.

    ``progress`` is called with the number of weights that are drawn and that of all.
    """
    with accelerate.init_empty_weights(include_buffers=False):
        model = getattr(transformers, auto_class)._from_config(config, attn_implementation=attention)
    generator = torch.Generator(device=device).manual_seed(0)
    weights = [(module, *named) for module in model.modules() for named in module.named_parameters(recurse=False)]
    for module, name, weight in counted(weights, progress):
        drawn = torch.empty(weight.shape, dtype=dtype, device=device)
        if weight.dim() > 1:
            drawn.normal_(0, _STD, generator=generator)
        else:  # norm scales are 1, biases and the class embedding 0
            drawn.fill_(1.0 if name == "weight" else 0.0)
        module.register_parameter(name, torch.nn.Parameter(drawn, requires_grad=False))
    return model.to(device)


def preset_processor(preset: Preset) -> Any:
    """The stock processor: CLIP's preprocessing to 336 pixels, and a tokenizer with one token per byte."""
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    options: dict[str, Any] = {
        "tokenizer": byte_tokenizer(),
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    if preset.anyres:
        images = transformers.LlavaNextImageProcessorPil(**size, image_grid_pinpoints=_PINPOINTS)
        return transformers.LlavaNextProcessor(image_processor=images, **options)
    return transformers.LlavaProcessor(image_processor=transformers.CLIPImageProcessorPil(**size), **options)


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A lossless byte-level tokenizer with LLaVA's special tokens first, left padding and ``<s>`` at the beginning."""
    names = [*_SPECIAL, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    vocab = {name: index for index, name in enumerate(names)}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    core.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in _SPECIAL])
    return llava_tokenizer(core)


def llava_tokenizer(core: tokenizers.Tokenizer) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer ``core``, which knows LLaVA's special tokens, with their roles and left padding."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )
