"""PaliGemma: a SigLIP tower with one linear layer, and a prompt whose tokens all see one another."""

from __future__ import annotations

from typing import Any

import PIL.Image
import torch

from fopru_graph.lvlm.families.merging import MergingFamily, Prepared


class PaliGemma(MergingFamily):
    """`PaliGemmaForConditionalGeneration`, e.g. ``google/paligemma-3b-mix-224``.

    A picture is resized to one square tile of which every patch is a visual token. There is no chat: the prompt is the
    image tokens, the token that begins a text, the text and a newline. The answer is causal, the prompt is not.
    """

    model_types = ("paligemma",)
    auto_class = "PaliGemmaForConditionalGeneration"
    first_position = 1

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`."""
        pixels = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        patch = self.model.config.vision_config.patch_size
        high, wide = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        return Prepared(
            inputs={"pixel_values": pixels},
            grids=((high, wide),) * len(pictures),
            owners=tuple(range(len(pictures))),
            pixels=tuple(pixels),
            markup=(self.placeholder * (high * wide),) * len(pictures),
        )

    def template(self, prompt: str, images: int) -> str | None:
        """See `Family.template`: images stay where they are written, the text's beginning comes after the last one."""
        joined = prompt.replace(f"{self.placeholder}\n", self.placeholder)  # the line end that chat_text puts there
        before, image, text = joined.rpartition(self.placeholder)
        return f"{before}{image}{self.processor.tokenizer.bos_token}{text}\n"

    def tokenize(self, text: str) -> list[int]:
        """See `Family.tokenize`; the text says itself where it begins."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    @property
    def decoder(self) -> Any:
        """See `Family.decoder`: the model around the stack makes the masks."""
        return self.model.model

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """See `Family.prefill_inputs`: (B, L) int64, 0 where a token sees the whole prompt, as all of it does."""
        return {"token_type_ids": torch.zeros_like(prompt.attention_mask)}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Family.logits`; PaliGemma 2 bounds them."""
        logits, bound = super().logits(hidden), getattr(self.language_model.config, "final_logit_softcapping", None)
        return logits if bound is None else torch.tanh(logits / bound) * bound
