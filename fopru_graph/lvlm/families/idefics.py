"""Idefics3 and SmolVLM: a SigLIP tower; s × s patches become one visual token; pictures are cut into tiles.

A picture becomes a grid of square tiles and, last, the whole of it in one more; each has markers around it in the
prompt, which stay whatever is dropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.merging import MergingFamily, Prepared

_FAKE, _GLOBAL = "<fake_token_around_image>", "<global-img>"
_FRAMES_A_SECOND = 24  # what the stock processor takes frames for that come without times
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


class Idefics3(MergingFamily):
    """`Idefics3ForConditionalGeneration`, e.g. ``HuggingFaceM4/Idefics3-8B-Llama3``."""

    model_types = ("idefics3",)
    auto_class = "Idefics3ForConditionalGeneration"

    @property
    def tower(self) -> Any:
        """See `Family.tower`."""
        return self.model.model.vision_model

    @property
    def projector(self) -> Any:
        """See `Family.projector`."""
        return self.model.model.connector

    @property
    def language_model(self) -> Any:
        """See `Family.language_model`."""
        return self.model.model.text_model

    @cached_property
    def patches(self) -> int:  # type: ignore[override]
        """Patches merged into one visual token."""
        return int(self.model.config.scale_factor) ** 2

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """See `MergingFamily.patch_groups`; the stock shuffle is asked, with patch numbers (1, M, 1) for features."""
        numbers = torch.arange(grid[0] * grid[1] * self.patches).view(1, -1, 1)
        units: torch.Tensor = self.projector.pixel_shuffle(numbers, self.model.config.scale_factor)[0]
        return units

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`. Tiles are squares, so none is padded; shorter pictures get empty tiles."""
        images = [[picture] for picture in pictures]
        batch = self.processor.image_processor(images, return_row_col_info=True, return_tensors="pt")
        shapes = [(rows, columns) for (rows,), (columns,) in zip(batch["rows"], batch["cols"], strict=True)]
        grid = self._grid(batch["pixel_values"])
        tokens = self.placeholder * (grid[0] * grid[1])
        places = [[*(divmod(tile, columns) for tile in range(rows * columns)), None] for rows, columns in shapes]
        prepared = self._prepared(batch, list(map(len, places)), [_tiled(*shape, tokens) for shape in shapes])
        return replace(prepared, tile_positions=tuple(place for own in places for place in own))

    def _prepared(self, batch: Any, counts: list[int], markup: list[str]) -> Prepared:
        """Of tiles (B, T, 3, H, W), the first ``counts`` of every image."""
        pixels = batch["pixel_values"]
        owners = tuple(image for image, count in enumerate(counts) for _ in range(count))
        return Prepared(
            inputs={name: batch[name] for name in ("pixel_values", "pixel_attention_mask")},
            grids=(self._grid(pixels),) * len(owners),
            owners=owners,
            pixels=tuple(tile for tiles, count in zip(pixels, counts, strict=True) for tile in tiles[:count]),
            markup=tuple(markup),
        )

    def _grid(self, pixels: torch.Tensor) -> tuple[int, int]:
        """Visual tokens (h, w) of a tile (…, H, W)."""
        cell = self.model.config.vision_config.patch_size * self.model.config.scale_factor
        return pixels.shape[-2] // cell, pixels.shape[-1] // cell


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration`, e.g. ``HuggingFaceTB/SmolVLM2-2.2B-Instruct``; it also takes videos.

    A frame is one tile. The prompt says when each was shown; frames come here without times, and then the stock
    processor's own assumption is made: 24 of them a second.
    """

    model_types = ("smolvlm",)
    auto_class = "SmolVLMForConditionalGeneration"
    video_placeholder = "<video>"

    def prepare_videos(self, videos: list[list[PIL.Image.Image]]) -> Prepared:
        """See `MergingFamily.prepare_videos`."""
        processor = self.processor.image_processor
        sampling = getattr(processor, "video_sampling", None)  # the checkpoint's own size for frames
        options = {"size": sampling["video_size"]} if sampling else {}
        batch = processor(videos, do_image_splitting=False, return_tensors="pt", **options)
        grid = self._grid(batch["pixel_values"])
        single = _tiled(0, 0, self.placeholder * (grid[0] * grid[1]))
        counts = [len(video) for video in videos]
        return self._prepared(batch, counts, [_film(count, single) for count in counts])


def _tiled(rows: int, columns: int, tokens: str) -> str:
    """The text that stands for a picture cut into ``rows`` × ``columns`` tiles, 0 × 0 for one that is not cut."""
    lines = "".join(
        "".join(f"{_FAKE}<row_{row + 1}_col_{column + 1}>{tokens}" for column in range(columns)) + "\n"
        for row in range(rows)
    )
    return f"{lines}{chr(10) if rows else ''}{_FAKE}{_GLOBAL}{tokens}{_FAKE}"


def _film(frames: int, single: str) -> str:
    """The text that stands for a video, with ``single`` for each frame."""
    words, last = _words(frames), (frames - 1) // _FRAMES_A_SECOND  # less than a minute
    said = f"You are provided the following series of {words} frames from a 0:00:{last:02d} [H:MM:SS] video.\n"
    shown = "".join(f"\nFrame from 00:{frame // _FRAMES_A_SECOND:02d}:{single}" for frame in range(frames))
    return f"{said}{shown}\n\n"


def _words(number: int) -> str:
    """A number below a thousand in English words.

    Raises:
        UserError: it is larger.
    """
    if number >= 1000:
        raise UserError(f"{number} frames are more than a prompt can name", "take fewer than 1000 frames")
    small, tens = _SMALL.split(), _TENS.split()
    hundreds, rest = divmod(number, 100)
    below = small[rest] if rest < 20 else tens[rest // 10 - 2] + (f"-{small[rest % 10]}" if rest % 10 else "")
    if not hundreds:
        return below
    return f"{small[hundreds]} hundred" + (f" and {below}" if rest else "")
