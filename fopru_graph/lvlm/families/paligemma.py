"""PaliGemma: a SigLIP tower with one linear layer, and a prompt whose tokens all see one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import PIL.Image
import torch

from fopru_graph.lvlm.families.merging import MergingFamily, Prepared
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.values import ModelSizes


@register_family(
    "paligemma",
    checkpoints=("google/paligemma-3b-mix-224", "google/paligemma-3b-mix-448", "google/paligemma2-3b-mix-224"),
    tokens="256, 1024 or 4096, by the checkpoint's resolution",
    note="no chat; PaliGemma 2 runs with attention: eager only, its soft-capping of attention is not in the scores",
)
class PaliGemma(MergingFamily):
    """`PaliGemmaForConditionalGeneration`, e.g. ``google/paligemma-3b-mix-224``.

    A picture is resized to one square tile, and every patch is a visual token. There is no chat template: the prompt
    is the image tokens, the token that begins a text, the text and a newline. Only the answer is causal.
    """

    auto_class = "PaliGemmaForConditionalGeneration"
    towers = {"siglip_vision_model": 0}
    decoder_path = "model"  # it makes the masks
    layerwise_texts = frozenset({"gemma", "gemma2"})
    windows_in_prompt = False
    first_position = 1
    after_image = ""

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        pixels = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        high, wide = self.grid_of(pixels)
        markup = [self.placeholder * (high * wide)] * len(pictures)
        return Prepared({"pixel_values": pixels}, pixels, [1] * len(pictures), markup)

    def template(self, prompt: str) -> str | None:
        """See `Family.template`: images stay where the prompt has them; the text begins after the last one."""
        before, image, text = prompt.rpartition(self.placeholder)
        return f"{before}{image}{self.processor.tokenizer.bos_token}{text}\n"

    def tokenize(self, text: str) -> list[int]:
        """See `Family.tokenize`; `template` has written the token that begins the text."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """See `Family.prefill_inputs`: (B, L) int64 of zeros, because every token of the prompt sees all of it."""
        return {"token_type_ids": torch.zeros_like(prompt.attention_mask)}

    def sees_until(self, prompt: Any) -> torch.Tensor:
        """See `Layerwise.sees_until`: the last token of the prompt."""
        return torch.full_like(prompt.attention_mask, prompt.attention_mask.shape[1] - 1)

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`: every token of the prompt sees all of it."""
        return replace(super().model_sizes(), causal=False)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Family.logits`; PaliGemma 2 bounds them (soft-capping)."""
        logits, bound = super().logits(hidden), getattr(self.language_model.config, "final_logit_softcapping", None)
        return logits if bound is None else torch.tanh(logits / bound) * bound
