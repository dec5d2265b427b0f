"""One row a family: a tiny random model of it, offline, and what the stock model needs to see a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.merging import MergingFamily
from fopru_graph.lvlm.inputs.chat import Question
from fopru_graph.lvlm.inputs.prompt import Prompt, build_prompt
from fopru_graph.lvlm.loading.presets import byte_tokenizer
from fopru_graph.lvlm.loading.processor import PartsProcessor
from fopru_graph.values import Image, VisualTokens
from tests import tiny

VOCABULARY = 384
LANGUAGE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
IMAGE_ID = 4


@dataclass(frozen=True)
class Row:
    """One family of the matrix.

    ``build(attention)`` makes it with the given attention kernel and always the same weights. ``stock(family, images)``
    are the keyword arguments that the stock ``generate`` needs for these pictures besides ``input_ids`` and
    ``attention_mask``; ``extra(family, prompt)`` those that go with the whole prompt's tokens. ``sizes`` are pictures'
    (width, height) that its preprocessing treats differently; ``cuts`` a first layer that it can be pruned at.
    """

    build: Callable[[str], Family]
    stock: Callable[[Family, Sequence[Image]], dict[str, Any]]
    extra: Callable[[Family, Prompt], dict[str, Any]] = lambda _family, _prompt: {}
    sizes: tuple[tuple[int, int], ...] = ((64, 64), (120, 40), (40, 90))
    first: int = 2


def finish(kind: Any, config: Any, attention: str, seed: int = 0) -> Any:
    """A stock model with weights large enough that attention is far from uniform."""
    torch.manual_seed(seed)
    model = kind._from_config(config, attn_implementation=attention)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    tiny.enlarge(model, seed)
    return model.eval()


def tokenizer(*more: str) -> transformers.PreTrainedTokenizerFast:
    """One token a byte; ``more`` are the family's special tokens. The image token keeps its id, 4."""
    made = byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": list(more)})
    assert len(made) <= VOCABULARY
    return made


def parts(image_processor: Any, *more: str, template: str | None = None) -> PartsProcessor:
    """A processor made of its parts."""
    return PartsProcessor(image_processor, tokenizer(*more), template)


def prepared_inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """The model inputs that a `MergingFamily` prepares, for stock to encode by itself."""
    assert isinstance(family, MergingFamily)
    return dict(family.prepare([image.picture for image in images]).inputs)


def everything(family: Family, images: Sequence[Image]) -> VisualTokens:
    """All visual tokens of the pictures."""
    return family.project(family.encode(images), None)


def stock_answer(
    row: Row,
    family: Family,
    prompts: Sequence[str | Question],
    images: Sequence[Image],
    steps: int,
    **options: Any,
) -> tuple[list[list[int]], torch.Tensor]:
    """Ids and logits (B, steps, V) of the stock ``generate``, which encodes the pictures by itself."""
    prompt = build_prompt(family, prompts, everything(family, images) if images else None)
    output = family.model.generate(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        **(row.stock(family, images) if images else {}),
        **row.extra(family, prompt),
        max_new_tokens=steps,
        return_dict_in_generate=True,
        output_logits=True,
        **{"do_sample": False} | options,
    )
    return output.sequences[:, prompt.input_ids.shape[1] :].tolist(), torch.stack(output.logits, 1)
