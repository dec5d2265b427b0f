"""Mistral 3: a Pixtral tower that takes pictures in their own shape; squares of patches become one visual token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import PIL.Image

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.families.merging import Grid, MergingFamily, Prepared
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.families.towers import read_layer
from fopru_graph.values import TileAttention

_BREAK, _END = "[IMG_BREAK]", "[IMG_END]"


@register_family(
    "mistral3",
    checkpoints=("mistralai/Mistral-Small-3.1-24B-Instruct-2503",),
    tokens="up to 3025: one for 28 × 28 pixels of the picture, at most 1540 along a side",
    note="a row's break goes when the row has no token left",
)
class Mistral3(MergingFamily):
    """`Mistral3ForConditionalGeneration`, e.g. ``mistralai/Mistral-Small-3.1-24B-Instruct-2503``.

    A picture is shrunk to the longest edge and is one tile in its own shape. Each row of visual tokens ends in a break
    token in the prompt, which is dropped with the last visual token of its row; the last row ends in the image's end.
    """

    auto_class = "Mistral3ForConditionalGeneration"
    towers = {"pixtral": 0}
    tower_layers_path = "transformer.layers"
    attention_name = "attention"

    @property
    def merge_side(self) -> int:
        return int(self.model.config.spatial_merge_size)

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; the stock model reads one layer."""
        return read_layer(self.model.config.vision_feature_layer, len(self.tower_layers))

    @cached_property
    def line_end_id(self) -> int | None:  # type: ignore[override]
        return int(self.processor.tokenizer.convert_tokens_to_ids(_BREAK))

    def attentions(self, calls: Sequence[Attention], grids: Sequence[Grid]) -> list[TileAttention]:
        """See `MergingFamily.attentions`: one call of (1, H, M of all tiles, d), masked so that tiles do not mix."""
        (call,) = calls
        counts = [h * w * self.patches for h, w in grids]
        groups = self.patch_groups_of(grids, call.query.device)
        parts = zip(call.query[0].split(counts, 1), call.key[0].split(counts, 1), groups, strict=True)
        return [TileAttention(*qk, call.scale, 0, merged) for *qk, merged in parts]

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `Family.picture_tokens`; a picture is shrunk to its longest side, and filled up to whole tokens."""
        most = _largest(self.processor.image_processor.size)
        shrunk = max(size[0] / most[0], size[1] / most[1], 1)
        cell = int(self.model.config.vision_config.patch_size) * self.merge_side
        high, wide = (math.ceil(max(1, math.floor(side / shrunk)) / cell) for side in size)
        return high * wide

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`. Pictures are padded to one size; the model reads ``image_sizes`` only."""
        processor = self.processor.image_processor
        cell = int(self.model.config.vision_config.patch_size) * self.merge_side  # pixels along a visual token's side
        for picture in pictures:
            _refuse_narrow(picture, processor.size)
        # The merger takes whole squares of patches only, which the image processor of a checkpoint does not know.
        options = {"patch_size": {"height": cell, "width": cell}, "do_pad": True}
        batch = processor(pictures, return_tensors="pt", **options)
        sizes = [(int(high), int(wide)) for high, wide in batch["image_sizes"]]
        grids = [(high // cell, wide // cell) for high, wide in sizes]
        if grids == [(1, 1)]:  # the stock model loses a dimension there
            raise UserError(
                f"a picture of at most {cell} × {cell} pixels is one visual token, "
                "which the stock model cannot take alone",
                "enlarge it",
            )
        padded = zip(batch["pixel_values"], sizes, strict=True)
        return Prepared(
            {"pixel_values": batch["pixel_values"], "image_sizes": sizes},
            [pixels[:, :high, :wide] for pixels, (high, wide) in padded],
            [1] * len(pictures),
            [_BREAK.join([self.placeholder * wide] * high) + _END for high, wide in grids],
        )

    def prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> Prepared:
        """See `MergingFamily.prepared`."""
        padded, sizes = inputs["pixel_values"], [(int(high), int(wide)) for high, wide in inputs["image_sizes"]]
        pixels = [tile[:, :high, :wide] for tile, (high, wide) in zip(padded, sizes, strict=True)]
        return Prepared({"pixel_values": padded, "image_sizes": sizes}, pixels, [1] * len(sizes), ())


def _largest(size: Any) -> tuple[int, int]:
    """The most pixels (height, width) that a picture keeps, from the processor's ``size``."""
    longest = size.get("longest_edge")
    return (longest, longest) if longest else (size["height"], size["width"])


def _refuse_narrow(picture: PIL.Image.Image, size: Any) -> None:
    """Refuse a picture that the stock processor would shrink to nothing.

    Raises:
        UserError: its shape is that extreme.
    """
    high, wide = _largest(size)
    ratio = max(picture.height / high, picture.width / wide, 1)
    if min(picture.size) / ratio < 1:
        raise UserError(
            f"a picture of {picture.width} × {picture.height} pixels is too narrow: "
            f"shrunk to {wide} × {high} at most, its short side has no pixel left",
            "crop it",
        )
