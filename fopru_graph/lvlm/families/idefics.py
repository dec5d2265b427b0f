"""Idefics3 and SmolVLM: a SigLIP tower; s × s patches become one visual token; pictures are cut into tiles.

A picture becomes a grid of square tiles, and one more tile that shows all of it. In the prompt each tile has markers
around it, which stay whatever is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.merging import Grid, MergingFamily, Prepared, TilePosition
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.inputs.token_ids import runs_of
from fopru_graph.values import Video

_FAKE, _GLOBAL = "<fake_token_around_image>", "<global-img>"
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


@register_family(
    "idefics3",
    checkpoints=("HuggingFaceM4/Idefics3-8B-Llama3",),
    tokens="169 a tile, up to 4 × 4 tiles and one of the whole: 2873",
    note="pictures are enlarged to the longest edge; the markers of a tile stay",
)
class Idefics3(MergingFamily):
    """`Idefics3ForConditionalGeneration`, e.g. ``HuggingFaceM4/Idefics3-8B-Llama3``."""

    auto_class = "Idefics3ForConditionalGeneration"
    tower_path = "model.vision_model"
    projector_path = "model.connector"
    language_model_path = "model.text_model"

    @property
    def merge_side(self) -> int:
        return int(self.model.config.scale_factor)

    def patch_groups(self, grid: Grid) -> torch.Tensor:
        """See `MergingFamily.patch_groups`; the stock shuffle moves patch numbers (1, M, 1)."""
        numbers = torch.arange(grid[0] * grid[1] * self.patches).view(1, -1, 1)
        groups: torch.Tensor = self.projector.pixel_shuffle(numbers, self.merge_side)[0]
        return groups

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `Family.picture_tokens`."""
        processor = self.processor.image_processor
        side = processor.max_image_size["longest_edge"]
        high, wide = self.grid_of(torch.empty(0, side, side))
        return max(1, processor.get_number_of_image_patches(*size, {})[0]) * high * wide

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`. Tiles are squares, so none is padded."""
        images = [[picture] for picture in pictures]
        batch = self.processor.image_processor(images, return_row_col_info=True, return_tensors="pt")
        shapes = [(rows, columns) for (rows,), (columns,) in zip(batch["rows"], batch["cols"], strict=True)]
        tokens = self._tile_tokens(batch)
        positions: list[TilePosition] = []
        for rows, columns in shapes:
            positions += [*(divmod(tile, columns) for tile in range(rows * columns)), None]
        counts = [rows * columns + 1 for rows, columns in shapes]
        return self._prepared(batch, counts, [_picture_markup(*shape, tokens) for shape in shapes], positions)

    def prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> Prepared:
        """See `MergingFamily.prepared`. The token before a tile's placeholders says where it lies in its picture.

        A picture ends with the tile that shows all of it, or is that tile alone.
        """
        known = self.processor.tokenizer.convert_ids_to_tokens
        positions: list[TilePosition] = []
        for run in runs_of(self.image_token_id, ids):
            named = run.before is not None and re.fullmatch(r"<row_(\d+)_col_(\d+)>", str(known(run.before)))
            positions.append((int(named[1]) - 1, int(named[2]) - 1) if named else None)
        ends = [tile + 1 for tile, position in enumerate(positions) if position is None]
        counts = [end - begin for begin, end in pairwise([0, *ends])]
        tiles = [tile for tile in inputs["pixel_values"].flatten(0, 1) if tile.any()]  # the model drops empty ones, too
        batch = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask")}
        return Prepared(batch, tiles, counts, (), positions)

    def _prepared(
        self, batch: Any, counts: list[int], markup: list[str], positions: Sequence[TilePosition] = ()
    ) -> Prepared:
        """Images of ``counts`` tiles each, from the processor's (B, T, 3, H, W) filled up with empty tiles."""
        inputs = {name: batch[name] for name in ("pixel_values", "pixel_attention_mask")}
        images = zip(batch["pixel_values"], counts, strict=True)
        return Prepared(inputs, [tile for tiles, n in images for tile in tiles[:n]], counts, markup, positions)

    def _tile_tokens(self, batch: Any) -> str:
        """The placeholders of one tile."""
        high, wide = self.grid_of(batch["pixel_values"])
        return self.placeholder * (high * wide)


@register_family(
    "smolvlm",
    checkpoints=("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
    tokens="64 or 81 a tile, up to 4 × 4 tiles and one of the whole: 1377; one tile a video frame",
    video=True,
    note="the prompt says the time of each frame, without times 24 a second; the markers of a tile stay",
)
class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration`, e.g. ``HuggingFaceTB/SmolVLM2-2.2B-Instruct``; it also takes videos.

    A frame is one tile. The prompt says when each frame was shown.
    """

    auto_class = "SmolVLMForConditionalGeneration"
    video_placeholder = "<video>"

    def prepare_videos(self, videos: list[Video]) -> Prepared:
        processor = self.processor.image_processor
        sampling = getattr(processor, "video_sampling", None)  # the checkpoint's size for frames
        options = {"size": sampling["video_size"]} if sampling else {}
        frames = [list(video.frames) for video in videos]
        batch = processor(frames, do_image_splitting=False, return_tensors="pt", **options)
        frame_markup = _picture_markup(0, 0, self._tile_tokens(batch))
        return self._prepared(batch, list(map(len, frames)), [_video_markup(video, frame_markup) for video in videos])


def _picture_markup(rows: int, columns: int, tokens: str) -> str:
    """The text that stands for a picture cut into ``rows`` × ``columns`` tiles, 0 × 0 for an uncut one."""
    lines = "".join(
        "".join(f"{_FAKE}<row_{row + 1}_col_{column + 1}>{tokens}" for column in range(columns)) + "\n"
        for row in range(rows)
    )
    return f"{lines}{chr(10) if rows else ''}{_FAKE}{_GLOBAL}{tokens}{_FAKE}"


def _video_markup(video: Video, frame_markup: str) -> str:
    """The text that stands for a video. Without its duration stock writes the last frame's time."""
    words, seconds = _words(len(video.frames)), [int(time) for time in video.frame_times]
    duration = timedelta(seconds=int(video.duration) if video.duration else seconds[-1])
    intro = f"You are provided the following series of {words} frames from a {duration} [H:MM:SS] video.\n"
    shown = "".join(f"\nFrame from {time // 60:02d}:{time % 60:02d}:{frame_markup}" for time in seconds)
    return f"{intro}{shown}\n\n"


def _words(number: int) -> str:
    """A number below 1000 in English words.

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
