"""InternVL: a tower with a CLS token; 2 × 2 patches become one visual token; pictures are cut into tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image
import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from fopru_graph.lvlm.families.merging import Grid, MergingFamily, Prepared, TilePosition
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.families.towers import read_layer
from fopru_graph.lvlm.inputs.token_ids import runs_of
from fopru_graph.values import Video


@register_family(
    "internvl",
    checkpoints=("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-8B-hf"),
    tokens="256 a tile, up to 12 tiles and a thumbnail: 3328; 256 a video frame",
    video=True,
)
class InternVL(MergingFamily):
    """`InternVLForConditionalGeneration`, e.g. ``OpenGVLab/InternVL3-1B-hf``.

    A picture is cut into up to ``max_patches`` tiles, in the grid closest to its shape; if there are several, a
    thumbnail of the whole follows. All of them stand between one pair of ``<img>`` and ``</img>``. A frame of a video
    is one tile, with its number and a pair of its own.
    """

    auto_class = "InternVLForConditionalGeneration"
    towers = {"internvl_vision": 1}  # its CLS
    tower_layers_path = "encoder.layer"
    attention_name = "attention"

    @property
    def merge_side(self) -> int:
        return round(1 / self.model.config.downsample_ratio)

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; the stock model reads one layer."""
        return read_layer(self.model.config.vision_feature_layer, len(self.tower_layers))

    def patch_groups(self, grid: Grid) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; the stock shuffle moves patch numbers (1, H, W, 1)."""
        high, wide = (side * self.merge_side for side in grid)
        numbers = torch.arange(high * wide).view(1, high, wide, 1)
        ratio = self.model.config.downsample_ratio
        groups: torch.Tensor = self.model.model.pixel_shuffle(numbers, scale_factor=ratio).view(-1, self.patches)
        return groups

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `Family.picture_tokens`."""
        processor = self.processor.image_processor
        tiles = processor.get_number_of_image_patches(*size, {"crop_to_patches": True})
        high, wide = self.grid_of(torch.empty(0, processor.size["height"], processor.size["width"]))
        return int(tiles) * high * wide

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`; like the stock processor it cuts tiles, whatever the checkpoint's default is."""
        batch = self.processor.image_processor(pictures, crop_to_patches=True, return_tensors="pt")
        pixels, counts = batch["pixel_values"], [int(count) for count in batch["num_patches"]]
        markup = [self._markup(pixels, count) for count in counts]
        positions = [
            position
            for picture, count in zip(pictures, counts, strict=True)
            for position in self._tile_positions(picture, count)
        ]
        return Prepared({"pixel_values": pixels}, pixels, counts, markup, positions)

    def prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> Prepared:
        """See `MergingFamily.prepared`; how the tiles lie in a picture is nowhere said.

        The placeholders of all tiles of a picture follow one another.
        """
        pixels = inputs["pixel_values"]
        high, wide = self.grid_of(pixels)
        counts = [run.length // (high * wide) for run in runs_of(self.image_token_id, ids)]
        return Prepared({"pixel_values": pixels}, pixels, counts, ())

    def _tile_positions(self, picture: PIL.Image.Image, count: int) -> list[TilePosition]:
        """The (row, column) of each of a picture's tiles; None for the thumbnail and for a picture of one tile."""
        processor = self.processor.image_processor
        columns, rows = get_optimal_tiled_canvas(
            (picture.height, picture.width),
            (processor.size["height"], processor.size["width"]),
            processor.min_patches,
            processor.max_patches,
        )
        tiles = columns * rows if count > 1 else 0
        return [*(divmod(tile, columns) for tile in range(tiles)), *[None] * (count - tiles)]

    def prepare_videos(self, videos: list[Video]) -> Prepared:
        frames = [frame for video in videos for frame in video.frames]
        pixels = self.processor.image_processor(frames, crop_to_patches=False, return_tensors="pt")["pixel_values"]
        counts, frame_markup = [len(video.frames) for video in videos], self._markup(pixels, 1)
        markup = ["\n".join(f"Frame{i + 1}: {frame_markup}" for i in range(count)) for count in counts]
        return Prepared({"pixel_values": pixels}, pixels, counts, markup)

    def _markup(self, pixels: torch.Tensor, tiles: int) -> str:
        """The placeholders of so many tiles, between the tokens that begin and end a picture."""
        tokenizer, (high, wide) = self.processor.tokenizer, self.grid_of(pixels)
        begin = getattr(tokenizer, "start_image_token", "<img>")
        end = getattr(tokenizer, "end_image_token", "</img>")
        return f"{begin}{self.placeholder * (high * wide * tiles)}{end}"
