"""Mistral 3: a Pixtral tower that takes pictures in their own shape; squares of patches become one visual token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import read_layer
from fopru_graph.lvlm.families.merging import MergingFamily, Prepared, squares
from fopru_graph.values import TileAttention

_BREAK, _END = "[IMG_BREAK]", "[IMG_END]"


class Mistral3(MergingFamily):
    """`Mistral3ForConditionalGeneration`, e.g. ``mistralai/Mistral-Small-3.1-24B-Instruct-2503``.

    A picture is shrunk to the longest edge and is one tile of as many rows and columns as it has. Rows of visual tokens
    end in a token of the prompt, which goes when the row has none left; the last row ends in the image's end.
    """

    model_types = ("mistral3",)
    auto_class = "Mistral3ForConditionalGeneration"
    attention_name = "attention"

    @property
    def tower_layers(self) -> Any:
        """See `Family.tower_layers`."""
        return self.tower.transformer.layers

    @cached_property
    def patches(self) -> int:  # type: ignore[override]
        """Patches merged into one visual token."""
        return int(self.model.config.spatial_merge_size) ** 2

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; the stock model reads one layer."""
        return read_layer(self.model.config.vision_feature_layer, len(self.tower_layers))

    @cached_property
    def line_end_id(self) -> int | None:  # type: ignore[override]
        """See `Family.line_end_id`."""
        return int(self.processor.tokenizer.convert_tokens_to_ids(_BREAK))

    @property
    def _cell(self) -> int:
        """Pixels along a side of a visual token."""
        return int(self.model.config.vision_config.patch_size * self.model.config.spatial_merge_size)

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """See `MergingFamily.patch_groups`."""
        return squares(grid, int(self.model.config.spatial_merge_size))

    def attentions(
        self, noted: Sequence[tuple[torch.Tensor, torch.Tensor, float]], prepared: Prepared
    ) -> list[TileAttention]:
        """See `MergingFamily.attentions`: one call for all tiles, (1, H, M of all tiles, d), masked by tile."""
        ((query, key, scale),) = noted
        counts = [h * w * self.patches for h, w in prepared.grids]
        units = [unit.to(query.device) for unit in map(self.patch_groups, prepared.grids) if unit is not None]
        parts = zip(query[0].split(counts, 1), key[0].split(counts, 1), units, strict=True)
        return [TileAttention(one, other, scale, self.prefix, unit) for one, other, unit in parts]

    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """See `MergingFamily.prepare`. Pictures are padded to one size; the model reads ``image_sizes`` only."""
        processor, cell = self.processor.image_processor, self._cell
        for picture in pictures:
            _refuse_narrow(picture, processor.size)
        # The merger takes whole squares of patches only, which the image processor of a checkpoint does not know.
        options = {"patch_size": {"height": cell, "width": cell}, "do_pad": True}
        batch = processor(pictures, return_tensors="pt", **options)
        sizes = [(int(high), int(wide)) for high, wide in batch["image_sizes"]]
        grids = tuple((high // cell, wide // cell) for high, wide in sizes)
        if grids == ((1, 1),):  # the stock model loses a dimension there
            raise UserError(
                f"a picture of at most {cell} × {cell} pixels is one visual token, "
                "which the stock model cannot take alone",
                "enlarge it",
            )
        shown = zip(batch["pixel_values"], sizes, strict=True)
        return Prepared(
            inputs={"pixel_values": batch["pixel_values"], "image_sizes": sizes},
            grids=grids,
            owners=tuple(range(len(pictures))),
            pixels=tuple(pixels[:, :high, :wide] for pixels, (high, wide) in shown),
            markup=tuple(_BREAK.join([self.placeholder * wide] * high) + _END for high, wide in grids),
        )


def _refuse_narrow(picture: PIL.Image.Image, size: Any) -> None:
    """Refuse a picture that the stock processor would shrink to nothing.

    Raises:
        UserError: its shape is that extreme.
    """
    longest = size.get("longest_edge")
    high, wide = (longest, longest) if longest else (size["height"], size["width"])
    ratio = max(picture.height / high, picture.width / wide, 1)
    if min(picture.size) / ratio < 1:
        raise UserError(
            f"a picture of {picture.width} × {picture.height} pixels is too narrow: "
            f"shrunk to {wide} × {high} at most, its short side has no pixel left",
            "crop it",
        )
