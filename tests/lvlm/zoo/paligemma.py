"""PaliGemma: a SigLIP tower of 4 × 4 patches, each a visual token; Gemma, which sees the whole prompt at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.paligemma import PaliGemma
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.values import Image
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, SIGLIP, Row, finish, parts, prepared_inputs


def build(attention: str = "sdpa", seed: int = 91, text: Any = transformers.GemmaConfig, **options: Any) -> PaliGemma:
    """A tiny PaliGemma without a chat template; ``options`` go into its language model's configuration."""
    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=text(**LANGUAGE, head_dim=8, **options),
        image_token_index=IMAGE_ID,
        projection_dim=LANGUAGE["hidden_size"],
    )
    model = finish(transformers.PaliGemmaForConditionalGeneration, config, attention, seed)
    side = SIGLIP["image_size"]
    images = transformers.SiglipImageProcessorPil(size={"height": side, "width": side}, image_seq_length=16)
    return PaliGemma(model, parts(images))


def inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: one tile a picture."""
    return prepared_inputs(family, images)


def types(_family: Family, prompt: Prompt) -> dict[str, Any]:
    """The token types of a prompt, as the stock processor gives them: 0 for what sees the whole prompt."""
    return {"token_type_ids": torch.zeros_like(prompt.input_ids)}


ROWS = {"paligemma": Row(build, inputs, types)}
