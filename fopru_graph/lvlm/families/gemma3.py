"""Gemma 3: a SigLIP tower whose patches are averaged square by square; visual tokens of an image see one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import PIL.Image
import torch

from fopru_graph.lvlm.families.merging import MergingFamily, Prepared
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.values import ModelSizes


@register_family(
    "gemma3",
    checkpoints=("google/gemma-3-4b-it", "google/gemma-3-12b-it", "google/gemma-3-27b-it"),
    tokens="256",
    note="no pan and scan; a layer with a sliding window ranks what is outside it last, every sixth has none",
)
class Gemma3(MergingFamily):
    """`Gemma3ForConditionalGeneration`, e.g. ``google/gemma-3-4b-it``.

    A picture is resized to one square tile ("pan and scan", which adds crops, is off, as in the stock processor).
    In the prompt the tokens of one image see one another in both directions, however many of them are dropped.
    """

    auto_class = "Gemma3ForConditionalGeneration"
    towers = {"siglip_vision_model": 0}
    decoder_path = "model"  # it makes one mask for each kind of layer
    layerwise_texts = frozenset({"gemma3_text"})

    @property
    def merge_side(self) -> int:
        return int(self.projector.kernel_size)

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        pixels = self.processor.image_processor(pictures, do_pan_and_scan=False, return_tensors="pt")["pixel_values"]
        high, wide = self.grid_of(pixels)
        tokenizer = self.processor.tokenizer
        tokens = str(tokenizer.decode([self.image_token_id])) * (high * wide)
        end = getattr(tokenizer, "eoi_token", "<end_of_image>")
        markup = [f"\n\n{self.placeholder}{tokens}{end}\n\n"] * len(pictures)
        return Prepared({"pixel_values": pixels}, pixels, [1] * len(pictures), markup)

    @property
    def placeholder(self) -> str:
        """See `Family.placeholder`: the token that begins an image."""
        return str(getattr(self.processor.tokenizer, "boi_token", "<start_of_image>"))

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """See `Family.prefill_inputs`: (B, L) int64, 1 for the tokens of images; each run of them is one block."""
        return {"token_type_ids": prompt.visual.long()}

    def rotary(self, hidden: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
        """See `Layerwise.rotary`; layers with a window turn faster."""
        embed = self.language_model.rotary_emb
        return {kind: embed(hidden, positions, kind) for kind in set(self.layer_kinds)}

    def sees_until(self, prompt: Any) -> torch.Tensor:
        """See `Layerwise.sees_until`: the last of each run of visual tokens."""
        visual = prompt.visual
        index = torch.arange(visual.shape[1], device=visual.device).expand_as(visual)
        goes_on = visual & torch.nn.functional.pad(visual[:, 1:], (0, 1))
        ends = index.masked_fill(goes_on, visual.shape[1])
        return ends.flip(1).cummin(1).values.flip(1)

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`; the projector's matrix belongs to no linear layer."""
        weights = self.projector.mm_input_projection_weight.numel()
        return replace(super().model_sizes(), projector_weights=weights)
