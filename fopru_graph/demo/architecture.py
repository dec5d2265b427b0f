"""The demo model's architecture: configuration, word-level tokenizer, processor, chat template, all stock classes."""

from __future__ import annotations

import tokenizers
import torch
import transformers

from fopru_graph.demo.questions import NUMBERS, plural
from fopru_graph.demo.scenes import COLOURS, SHAPES, WORDS
from fopru_graph.lvlm.loading.presets import llava_tokenizer

GRID, PATCH = 16, 14
SIDE = GRID * PATCH
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
TEMPLATE_WORDS = ("user", "assistant", ":", "?", ".", ",")
QUESTION_WORDS = (
    *("is", "there", "a", "what", "colour", "the", "shape", "object", "where", "how", "many", "are"),
    *("does", "text", "say", "yes", "no", "top", "bottom", "left", "right"),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def vocabulary() -> list[str]:
    """Every token of the demo model, special tokens first."""
    shapes = [form for shape in SHAPES for form in (shape, plural(shape))]
    return list(dict.fromkeys([*SPECIAL, *TEMPLATE_WORDS, *QUESTION_WORDS, *NUMBERS, *shapes, *COLOURS, *WORDS]))


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A lower-casing word tokenizer; left padding, and ``<s>`` in front as LLaVA-1.5 has it."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    core.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.Replace("color", "colour")]
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    core.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return llava_tokenizer(core)


def build_processor() -> transformers.LlavaProcessor:
    """The stock LLaVA processor: squash to 224 × 224, scale to [−1, 1], one ``<image>`` per patch."""
    size = {"height": SIDE, "width": SIDE}
    image_processor = transformers.CLIPImageProcessorPil(
        size=size, do_center_crop=False, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return transformers.LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> transformers.LlavaConfig:
    """LLaVA-1.5 in small: CLIP tower (6 × 192, features of layer −2), two-layer MLP projector, Llama (6 × 256)."""
    vocab = vocabulary()
    vision = transformers.CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=192,
    )
    text = transformers.LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        # About 1 / √width: with the usual 0.02 attention starts flat, and binding is learned much later.
        initializer_range=0.05,
        bos_token_id=vocab.index("<s>"),
        eos_token_id=vocab.index("</s>"),
        pad_token_id=vocab.index("<pad>"),
        tie_word_embeddings=True,
    )
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=vocab.index("<image>"),
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def build_model() -> transformers.LlavaForConditionalGeneration:
    """The untrained model in float32 with scaled-dot-product attention."""
    model = transformers.LlavaForConditionalGeneration._from_config(build_config(), attn_implementation="sdpa")
    return model.to(torch.float32)
