"""InternVL: a tower with a CLS token; 2 × 2 patches become one visual token; pictures are cut into tiles."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from fopru_graph.lvlm.families.family import read_layer
from fopru_graph.lvlm.families.merging import MergingFamily, Prepared


class InternVL(MergingFamily):
    """`InternVLForConditionalGeneration`, e.g. ``OpenGVLab/InternVL3-1B-hf``.

    A picture is cut into up to ``max_patches`` tiles in the grid that is closest to its shape; a thumbnail of the whole
    comes last, where there is more than one. All stand between one pair of ``<img>`` and ``</img>``. A frame of a video
    is one tile, with its number and its own pair.
    """

    model_types = ("internvl",)
    auto_class = "InternVLForConditionalGeneration"
    prefix = 1  # CLS
    attention_name = "attention"

    @property
    def tower_layers(self) -> Any:
        """See `Family.tower_layers`."""
        return self.tower.encoder.layer

    @cached_property
    def patches(self) -> int:  # type: ignore[override]
        """Patches merged into one visual token."""
        return round(1 / self.model.config.downsample_ratio) ** 2

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; the stock model reads one layer."""
        return read_layer(self.model.config.vision_feature_layer, len(self.tower_layers))

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """See `MergingFamily.patch_groups`; the stock shuffle moves patch numbers (1, H, W, 1)."""
        core, ratio = self.model.model, self.model.config.downsample_ratio
        high, wide = (round(side / ratio) for side in grid)
        numbers = torch.arange(high * wide).view(1, high, wide, 1)
        units: torch.Tensor = core.pixel_shuffle(numbers, scale_factor=ratio).view(-1, self.patches)
        return units

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`; the stock processor asks for tiles, whatever the checkpoint's default is."""
        batch = self.processor.image_processor(pictures, crop_to_patches=True, return_tensors="pt")
        counts = [int(count) for count in batch["num_patches"]]
        tile = self._tile(batch["pixel_values"])
        prepared = self._prepared(batch["pixel_values"], counts, [self._between(tile * count) for count in counts])
        pairs = zip(pictures, counts, strict=True)
        return replace(prepared, tile_positions=tuple(at for picture, n in pairs for at in self._places(picture, n)))

    def _places(self, picture: PIL.Image.Image, count: int) -> list[tuple[int, int] | None]:
        """The (row, column) of each of a picture's tiles; the thumbnail, and a picture that is one tile, have none."""
        processor = self.processor.image_processor
        columns, rows = get_optimal_tiled_canvas(
            (picture.height, picture.width),
            (processor.size["height"], processor.size["width"]),
            processor.min_patches,
            processor.max_patches,
        )
        tiles = columns * rows if count > 1 else 0
        return [*(divmod(tile, columns) for tile in range(tiles)), *[None] * (count - tiles)]

    def prepare_videos(self, videos: list[list[PIL.Image.Image]]) -> Prepared:
        """See `MergingFamily.prepare_videos`."""
        frames = [frame for video in videos for frame in video]
        pixels = self.processor.image_processor(frames, crop_to_patches=False, return_tensors="pt")["pixel_values"]
        single, counts = self._between(self._tile(pixels)), [len(video) for video in videos]
        lines = [[f"Frame{i + 1}: {single}" for i in range(count)] for count in counts]
        return self._prepared(pixels, counts, ["\n".join(one) for one in lines])

    def _prepared(self, pixels: torch.Tensor, counts: list[int], markup: list[str]) -> Prepared:
        """Tiles (T, 3, H, W), ``counts`` of them an image or video."""
        return Prepared(
            inputs={"pixel_values": pixels},
            grids=(self._grid(pixels),) * len(pixels),
            owners=tuple(image for image, count in enumerate(counts) for _ in range(count)),
            pixels=tuple(pixels),
            markup=tuple(markup),
        )

    def _grid(self, pixels: torch.Tensor) -> tuple[int, int]:
        """Visual tokens (h, w) of a tile (…, H, W)."""
        config = self.model.config
        high, wide = config.vision_config.patch_size
        ratio = config.downsample_ratio
        return round(pixels.shape[-2] // high * ratio), round(pixels.shape[-1] // wide * ratio)

    def _tile(self, pixels: torch.Tensor) -> str:
        """The placeholders of one tile."""
        high, wide = self._grid(pixels)
        return self.placeholder * (high * wide)

    def _between(self, tokens: str) -> str:
        """Placeholders between the tokens that begin and end a picture."""
        tokenizer = self.processor.tokenizer
        begin = getattr(tokenizer, "start_image_token", "<img>")
        return f"{begin}{tokens}{getattr(tokenizer, 'end_image_token', '</img>')}"
