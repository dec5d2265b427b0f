"""LLaVA-OneVision: a SigLIP tower; pictures cut into tiles as by LLaVA-NeXT, or whole, or videos with pooled frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import PIL.Image
import torch
from transformers.models.llava_onevision.modeling_llava_onevision import get_anyres_image_grid_shape

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.llava_next import NEWLINE, LlavaNext
from fopru_graph.lvlm.inputs.resolution import shrunken
from fopru_graph.values import Image, Selection, Video, VisionFeatures, VisualTokens


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`, e.g. ``llava-hf/llava-onevision-qwen2-7b-ov-hf``.

    A picture of more than about ten tiles' worth is shrunk by the model after projecting (``anyres_max_9``), so that
    one row is a mixture of up to four patches. Such a row goes with the patch that its centre falls on: it has that
    patch's score and place, stays when that patch is kept, and its value is the model's own mixture. No two rows share
    a patch; patches that no row is centred on are dropped even if they were selected, like those that are padding.
    """

    model_types = ("llava_onevision",)
    auto_class = "LlavaOnevisionForConditionalGeneration"

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.prefix = int(model.config.vision_feature_select_strategy == "default")  # SigLIP has none

    @property
    def _side(self) -> int:
        """Patches along a side of a tile."""
        config = self.model.config.vision_config
        return int(config.image_size // config.patch_size)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`. A frame of a video is one tile, projected here, as the model pools what is projected."""
        videos = [image for image in images if isinstance(image, Video)]
        if not videos:
            return super().encode(images)
        if len(videos) < len(images):
            raise UserError("pictures and videos cannot be encoded together", "give one kind")
        begin = time.perf_counter()
        pixels = self._frames([frame for video in videos for frame in video.frames]).unbind()
        owners = [i for i, video in enumerate(videos) for _ in video.frames]
        features = self._encoded(pixels, owners, [video.shape[-2:] for video in videos], begin)
        pooling = self._pooling()
        weights, units = pooling.topk(min(4, pooling.shape[1]))
        rows = self.model.model.apply_pooling(self.projector(torch.stack([tile.features for tile in features.tiles])))
        side = (self._side + 1) // 2
        pooled = [
            replace(
                tile,
                features=row,
                grid=(side, side),
                tile_position=None,
                prefix_features=None,
                attention=replace(tile.attention, patch_groups=units.to(row.device), weights=weights.to(row.device)),
            )
            for tile, row in zip(features.tiles, rows, strict=True)
        ]
        return replace(features, tiles=tuple(pooled))

    @torch.inference_mode()
    def encode_together(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """Several pictures of one prompt are not cut into tiles: each is padded to a square that is one tile.

        Its number of tokens is then the same for every `Image.resolution`.
        """
        pictures = [image for image in images if isinstance(image, Image)]
        if len(pictures) < 2 or len(pictures) < len(images):
            return self.encode(images)
        begin = time.perf_counter()
        pictures = [shrunken(image) for image in pictures]
        batch = self.processor.image_processor([[image.picture for image in pictures]], return_tensors="pt")
        sizes = [image.shape for image in pictures]
        return self._encoded(batch["pixel_values"][:, 0].unbind(), range(len(images)), sizes, begin)

    def _frames(self, frames: list[PIL.Image.Image]) -> torch.Tensor:
        """Frames (T, 3, H, W), each resized to a tile: what the picture processor gives as a picture's overview."""
        size = self.processor.image_processor.size
        single = [[size["height"], size["width"]]]
        batch = self.processor.image_processor(frames, image_grid_pinpoints=single, return_tensors="pt")
        pixels: torch.Tensor = batch["pixel_values"][:, 0]
        return pixels

    def _pooling(self) -> torch.Tensor:
        """The share (N, M) of each of a frame's M patches in its N pooled tokens, by the model's own pooling."""
        shares: torch.Tensor = self.model.model.apply_pooling(torch.eye(self._side**2)[None])[0]
        return shares

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `LlavaNext.project`; a video's tokens are followed by one newline."""
        if features.tiles[0].attention.patch_groups is None:
            return super().project(features, selection)
        chosen = self.chosen(features, selection)
        newline, rows, origin, encoded = self._newline()[None], [], [], []
        for video in range(len(features.image_sizes)):
            own = [t for t, tile in enumerate(features.tiles) if tile.image == video]
            rows.append(torch.cat([*(features.tiles[t].features[chosen[t]].to(newline) for t in own), newline]))
            places = [torch.stack([torch.full_like(chosen[t], t), chosen[t]], 1) for t in own]
            origin.append(torch.cat([*places, torch.full_like(places[0][:1], NEWLINE)]))
            encoded.append(sum(features.counts[t] for t in own) + 1)
        return VisualTokens(tuple(rows), tuple(origin), tuple(encoded))

    def _values(self, features: VisionFeatures, places: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """See `LlavaNext._values`; everything is projected, as a row may be mixed from patches that are not kept."""
        every = [torch.arange(count) for count in features.counts]
        projected = self._project_rows([tile.features for tile in features.tiles], every).to(self.device)
        packed = torch.cat(self._pack(projected.split(features.counts), features, self._newline()))
        return packed[alive.to(packed.device)]

    def _pack(
        self, tiles: Sequence[torch.Tensor], features: VisionFeatures, newline: torch.Tensor
    ) -> list[torch.Tensor]:
        """Tiles (N, C) as the model packs them: (rows, C) an image."""
        images = range(len(features.image_sizes))
        own = [
            torch.stack([tile for tile, of in zip(tiles, features.tiles, strict=True) if of.image == image])
            for image in images
        ]
        packed, _ = self.model.model.pack_image_features(
            own,
            [list(size) for size in features.image_sizes],
            image_newline=newline,
            vision_aspect_ratio=self.model.config.vision_aspect_ratio,
        )
        return list(packed)

    def _packed(self, features: VisionFeatures) -> list[torch.Tensor]:
        """See `LlavaNext._packed`: what is packed here are the patches' places (y, x), as places can be mixed.

        Bilinear shrinking of places gives the places that are looked at; numbers would be mixed to nonsense.
        """
        owners = [tile.image for tile in features.tiles]
        places = torch.zeros(sum(features.counts), 2)
        grids, first = [], 0
        for image, size in enumerate(features.image_sizes):
            grids.append(self._numbers(first, owners.count(image), size))
            first += owners.count(image) * self._side**2
            axes = (torch.arange(length) for length in grids[-1].shape)
            places[grids[-1].flatten()] = torch.cartesian_prod(*axes).float()
        packed = self._pack(places.split(features.counts), features, torch.full((2,), float(NEWLINE)))
        result, first = [], 0
        for image, (grid, where) in enumerate(zip(grids, packed, strict=True)):
            y, x = where.round().long().clamp(min=0).unbind(1)
            numbers = grid[y, x].masked_fill(where[:, 0] < 0, NEWLINE)
            if owners.count(image) > 1:  # the overview comes first, as it is
                numbers[: self._side**2] = torch.arange(first, first + self._side**2)
            first += owners.count(image) * self._side**2
            result.append(numbers)
        return result

    def _numbers(self, first: int, tiles: int, size: tuple[int, int]) -> torch.Tensor:
        """The numbers (H, W) of an image's patches as they lie in the picture, over all tiles but the overview."""
        side, config = self._side, self.model.config
        if tiles == 1:
            return torch.arange(first, first + side * side).view(side, side)
        high, wide = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
        numbers = torch.arange(first + side * side, first + tiles * side * side)
        return numbers.view(high, wide, side, side).transpose(1, 2).reshape(high * side, wide * side)
