"""Gemma 3: a SigLIP tower whose patches are averaged square by square; the tokens of an image see one another."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch

from fopru_graph.lvlm.families.merging import MergingFamily, Prepared, squares
from fopru_graph.values import ModelSizes


class Gemma3(MergingFamily):
    """`Gemma3ForConditionalGeneration`, e.g. ``google/gemma-3-4b-it``.

    A picture is resized to one square tile ("pan and scan", which adds crops, is off, as it is in the stock processor).
    In the prompt the tokens of one image see one another in both directions, whatever is dropped of them.
    """

    model_types = ("gemma3",)
    auto_class = "Gemma3ForConditionalGeneration"

    @cached_property
    def patches(self) -> int:  # type: ignore[override]
        """Patches averaged into one visual token."""
        return int(self.projector.kernel_size) ** 2

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """See `MergingFamily.patch_groups`."""
        return squares(grid, int(self.projector.kernel_size))

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`."""
        pixels = self.processor.image_processor(pictures, do_pan_and_scan=False, return_tensors="pt")["pixel_values"]
        side = int(self.projector.patches_per_image // self.projector.kernel_size)
        tokenizer, visual = self.processor.tokenizer, self.image_token_id
        tokens = str(tokenizer.decode([visual])) * side**2
        end = getattr(tokenizer, "eoi_token", "<end_of_image>")
        return Prepared(
            inputs={"pixel_values": pixels},
            grids=((side, side),) * len(pictures),
            owners=tuple(range(len(pictures))),
            pixels=tuple(pixels),
            markup=(f"\n\n{self.placeholder}{tokens}{end}\n\n",) * len(pictures),
        )

    @property
    def placeholder(self) -> str:
        """See `Family.placeholder`: the token that begins an image."""
        return str(getattr(self.processor.tokenizer, "boi_token", "<start_of_image>"))

    @property
    def decoder(self) -> Any:
        """See `Family.decoder`: the model around the stack makes one mask for each kind of layer."""
        return self.model.model

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """See `Family.prefill_inputs`: (B, L) int64, 1 where a token is of an image; each run of them is one block."""
        return {"token_type_ids": prompt.visual.long()}

    def model_sizes(self) -> ModelSizes:
        """See `Family.model_sizes`; the projector's matrix belongs to no linear layer."""
        weights = self.projector.mm_input_projection_weight.numel()
        return replace(super().model_sizes(), projector_weights=weights)
