"""A checkpoint as transformers loads it, and its inputs, for the workers that use transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import torch
import transformers

from benchmarks.peers.workers.protocol import PROMPT, Pixels


class Checkpoint:
    """The model of a folder, which answers as long as it is told to, and what makes its inputs.

    Qwen2-VL's own processor needs torchvision for videos. Its parts do without.
    """

    def __init__(self, folder: Path, weights: str, threads: int, attention: str) -> None:
        torch.set_num_threads(threads)
        self.model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=weights, attn_implementation=attention
        )
        self.model.generation_config.eos_token_id = None
        self._images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def inputs(self, picture: Pixels) -> dict[str, torch.Tensor]:
        """The tensors that ``generate`` takes for the picture and the prompt."""
        pixels = self._images(images=[PIL.Image.fromarray(picture)], return_tensors="pt")
        content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        image = self.model.config.image_token_id
        placeholder = self._tokenizer.convert_ids_to_tokens(image)
        text = text.replace(placeholder, placeholder * self._visual_tokens(pixels))
        inputs = dict(pixels) | dict(self._tokenizer(text, return_tensors="pt"))
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        if "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == image).long()
        return inputs

    def _visual_tokens(self, pixels: Any) -> int:
        vision = self.model.config.vision_config
        if "image_grid_thw" in pixels:
            return int(pixels["image_grid_thw"].prod() // vision.spatial_merge_size**2)
        return int((vision.image_size // vision.patch_size) ** 2)
