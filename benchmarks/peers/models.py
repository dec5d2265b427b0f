"""The models that every peer answers with: random weights in Hugging Face folders, written by this module.

A peer reads them as it would read a checkpoint from the hub. Each makes 576 visual tokens of the picture, and the
tokenizers have one token per byte, so that every peer gets the same prompt. Every id that a model may answer is in the
tokenizer: some peers turn all of them into text.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from fopru_graph.lvlm.loading.presets import byte_tokenizer, find_preset, llava_tokenizer, preset_config, random_model

_VOCABULARY = 8192
_QWEN_SPECIAL = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")
_CONTENT = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
)
_LLAVA_TEMPLATE = (
    "{% for m in messages %}USER: " + _CONTENT.replace("IMAGE", "<image>\n") + " {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    + _CONTENT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_llava(folder: Path) -> None:
    """LLaVA of 120 M parameters, `random:llava-cpu`: CLIP of 336 pixels and Llama."""
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, resample=3
    )
    tokenizer = _tokenizer(())
    tokenizer.chat_template = _LLAVA_TEMPLATE
    processor = transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_TEMPLATE,
    )
    processor.save_pretrained(folder)
    _write(folder, preset_config(find_preset("llava-cpu")), "LlavaForConditionalGeneration", images)


def write_qwen2_vl(folder: Path) -> None:
    """Qwen2-VL of 111 M parameters, of the same depth and width; a picture of 672 × 672 pixels has 2304 patches."""
    tokenizer = _tokenizer(_QWEN_SPECIAL)
    tokenizer.chat_template = _QWEN_TEMPLATE
    tokenizer.save_pretrained(folder)
    text = {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6},
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(_QWEN_SPECIAL[:4])), strict=True))
    vision = {"depth": 12, "embed_dim": 384, "hidden_size": 768, "num_heads": 6, "mlp_ratio": 4, "patch_size": 14}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    images = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 1280 * 28**2})
    _write(folder, config, "Qwen2VLForConditionalGeneration", images)


def _tokenizer(special: tuple[str, ...]) -> Any:
    """One token per byte, the special tokens, and names that no text contains for the other ids."""
    plain = byte_tokenizer()
    first = len(plain)
    names = [*special, *(f"<unused{index}>" for index in range(_VOCABULARY - first - len(special)))]
    vocab = plain.get_vocab() | {name: first + index for index, name in enumerate(names)}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = plain.backend_tokenizer.pre_tokenizer
    core.decoder = plain.backend_tokenizer.decoder
    core.post_processor = plain.backend_tokenizer.post_processor
    marked = [*plain.all_special_tokens, *special]
    core.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in marked])
    return llava_tokenizer(core)


def _write(folder: Path, config: Any, kind: str, images: Any) -> None:
    images.save_pretrained(folder)  # preprocessor_config.json, where OpenVINO GenAI looks for it
    random_model(config, kind, torch.device("cpu"), torch.float32, "sdpa").save_pretrained(folder)


WRITERS = {"llava": write_llava, "qwen2-vl": write_qwen2_vl}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]))
