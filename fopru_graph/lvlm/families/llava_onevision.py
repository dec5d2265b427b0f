"""LLaVA-OneVision: a SigLIP tower; pictures cut into tiles as by LLaVA-NeXT, or whole, or videos with pooled frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.llava_next import NEWLINE, LlavaNext
from fopru_graph.lvlm.families.modules import copy_to, entering
from fopru_graph.lvlm.families.padding import SeenTile, only_patches
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.values import Image, Tile, Video, VisionFeatures


@register_family(
    "llava_onevision",
    checkpoints=("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    tokens="up to about 8800: 729 of the overview, then 729 a tile, without those of padding; and a newline a row, "
    "which no ratio counts; 196 a video frame",
    video=True,
    note="more than about ten tiles are shrunk; VisionEncode's together takes each picture as one tile",
)
class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`, e.g. ``llava-hf/llava-onevision-qwen2-7b-ov-hf``.

    After projecting, the model shrinks a picture of more than about ten tiles (``anyres_max_9``), so that a visual
    token is a mixture of up to four patches. Such a picture is projected when it is encoded; a token belongs to the
    tile under its centre, and its score is the same mixture of the scores of that tile's patches.
    """

    auto_class = "LlavaOnevisionForConditionalGeneration"

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`. A video frame is one tile and is projected here, as the model pools after projecting."""
        videos = [image for image in images if isinstance(image, Video)]
        if not videos:
            return super().encode(images)
        if len(videos) < len(images):
            raise UserError("pictures and videos cannot be encoded together", "give one kind")
        begin = time.perf_counter()
        pixels = self._frames([frame for video in videos for frame in video.frames]).unbind()
        tile_images = [i for i, video in enumerate(videos) for _ in video.frames]
        features = self._encode_tiles(pixels, tile_images, [video.shape[-2:] for video in videos], begin)
        pooling = self._pooling()
        weights, groups = pooling.topk(min(4, pooling.shape[1]))
        projected = self.projector(torch.stack([tile.features for tile in features.tiles]))
        pooled = self.model.model.apply_pooling(projected)
        weights, groups = copy_to(weights, pooled.device), copy_to(groups, pooled.device)
        side = (self._side + 1) // 2
        tiles = [
            replace(
                tile,
                features=tokens,
                grid=(side, side),
                tile_position=None,
                prefix_features=None,
                attention=tile.attention.changed(lambda each: replace(each, patch_groups=groups, weights=weights)),
            )
            for tile, tokens in zip(features.tiles, pooled, strict=True)
        ]
        return replace(features, tiles=tuple(tiles), video=True)

    @torch.inference_mode()
    def encode_together(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode_together`: several pictures are not cut into tiles, but each is padded to one square tile.

        Its number of tokens is then the same for every `Image.resolution`.
        """
        pictures = [image for image in images if isinstance(image, Image)]
        if len(pictures) < 2 or len(pictures) < len(images):
            return self.encode(images)
        begin = time.perf_counter()
        pictures = [shrink(image) for image in pictures]
        batch = self.processor.image_processor([[image.picture for image in pictures]], return_tensors="pt")
        sizes = [image.shape for image in pictures]
        return self._encode_tiles(batch["pixel_values"][:, 0].unbind(), range(len(images)), sizes, begin)

    @torch.inference_mode()
    def _encode_prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> VisionFeatures:
        """See `LlavaNext._encode_prepared`; pictures that came as one list were not cut."""
        whole = {int(count) > 1 for count in inputs.get("batch_num_images", [1])}
        if len(whole) > 1:
            raise UserError(
                "some prompts of the batch have one picture and others several, which the model sees cut and whole",
                "give them in calls of their own",
            )
        if True not in whole:
            return super()._encode_prepared(inputs, ids)
        sizes = [(int(height), int(width)) for height, width in inputs["image_sizes"]]
        pixels = inputs["pixel_values"][:, 0].unbind()
        return self._encode_tiles(pixels, range(len(pixels)), sizes, time.perf_counter())

    def _frames(self, frames: list[PIL.Image.Image]) -> torch.Tensor:
        """Frames (T, 3, H, W), each resized to a tile: the overview that the image processor makes of a picture."""
        size = self.processor.image_processor.size
        single = [[size["height"], size["width"]]]
        batch = self.processor.image_processor(frames, image_grid_pinpoints=single, return_tensors="pt")
        pixels: torch.Tensor = batch["pixel_values"][:, 0]
        return pixels

    def _pooling(self) -> torch.Tensor:
        """The share (N, M) of each of a frame's M patches in its N pooled tokens, by the stock pooling."""
        shares: torch.Tensor = self.model.model.apply_pooling(torch.eye(self._side**2)[None])[0]
        return shares

    def _packed_tiles(self, seen: Sequence[SeenTile], size: tuple[int, int]) -> list[SeenTile]:
        """See `LlavaNext._packed_tiles`; a picture that the model shrinks is projected here, as that mixes tokens."""
        centres = self._centres(size, len(seen))[1]
        if torch.equal(centres, centres.round()):
            return super()._packed_tiles(seen, size)
        features = torch.stack([tile.features for tile, _ in seen])
        projected = self.projector(entering(self.projector, features))
        packed = self._pack(projected, size, self._newline().to(projected))
        count, side = self._side**2, self._side
        overview, pixels = seen[0]
        mixed = [(replace(overview, features=packed[:count], prefix_features=None), pixels)]
        real = centres[:, 0] >= 0
        tokens, centres = packed[count:][copy_to(real.nonzero()[:, 0], packed.device)], centres[real]
        nearest = centres.round().long()
        for tile, pixels in seen[1:]:
            corner = torch.tensor(tile.tile_position) * side
            inside = ((nearest >= corner) & (nearest < corner + side)).all(1)
            if inside.any():
                grid = len(nearest[inside, 0].unique()), len(nearest[inside, 1].unique())
                tile_tokens = tokens[copy_to(inside.nonzero()[:, 0], tokens.device)]
                mixed.append(_mixed(tile, pixels, tile_tokens, grid, centres[inside] - corner))
        return mixed

    def _pack(self, tiles: torch.Tensor, size: tuple[int, int], newline: torch.Tensor) -> torch.Tensor:
        """Tiles (T, N, C) of an image (height, width) as the model packs them: (slots, C)."""
        packed, _ = self.model.model.pack_image_features(
            [tiles], [list(size)], image_newline=newline, vision_aspect_ratio=self.model.config.vision_aspect_ratio
        )
        slots: torch.Tensor = packed[0]
        return slots

    def _centres(self, size: tuple[int, int], tiles: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The numbers (H, W) of all patches as they lie in the picture, and where in it the slots' centres (S, 2) are.

        A centre is (y, x) in patches, (−1, −1) for a newline; the overview is left out of both. The stock packing gives
        them, run on the patches' coordinates: it may shrink them bilinearly, while numbers would be mixed to nonsense.
        """
        side, wide = self._side, self._tiles(size)[1]
        high = (tiles - 1) // wide
        numbers = torch.arange(side * side, tiles * side * side)
        numbers = numbers.view(high, wide, side, side).transpose(1, 2).reshape(high * side, wide * side)
        coordinates = torch.zeros(tiles * side * side, 2)
        coordinates[numbers.flatten()] = torch.cartesian_prod(*map(torch.arange, numbers.shape)).float()
        packed = self._pack(coordinates.view(tiles, -1, 2), size, torch.full((2,), float(NEWLINE)))
        return numbers, packed[side * side :]

    def _slots(self, size: tuple[int, int], tiles: int) -> torch.Tensor:
        """See `LlavaNext._slots`; the patch of a mixed token is the one under its centre. No two tokens share one."""
        numbers, centres = self._centres(size, tiles)
        y, x = centres.round().long().clamp(min=0).unbind(1)
        cut = numbers[y, x].masked_fill(centres[:, 0] < 0, NEWLINE)
        return torch.cat([torch.arange(self._side**2), cut])  # the overview comes first and is not shrunk


def _mixed(
    tile: Tile, pixels: torch.Tensor, tokens: torch.Tensor, grid: tuple[int, int], centres: torch.Tensor
) -> SeenTile:
    """A tile whose visual tokens are mixtures of patches.

    Args:
        tile: a tile of M patches.
        pixels: (3, H, W) of the tile.
        tokens: (N, E), projected.
        grid: the tokens' (h, w).
        centres: (N, 2) where they lie in the tile, (y, x) in patches. Bilinear mixing gives a token up to four patches,
            each with the share of the pixel that ends at the centre; those of a neighbouring tile are left out here.
    """
    height, width = tile.grid
    low = centres.floor()
    part = centres - low
    corners, shares = [], []
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = low[:, 0] + down, low[:, 1] + across
        share = (part[:, 0] if down else 1 - part[:, 0]) * (part[:, 1] if across else 1 - part[:, 1])
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        corners.append((y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long())
        shares.append(share * inside)
    groups, weights = torch.stack(corners, 1), torch.stack(shares, 1)
    patches = groups[weights > 0].unique()
    ranks = torch.zeros(height * width, dtype=torch.int64).index_copy(0, patches, torch.arange(len(patches)))
    cut, pixels = only_patches(tile, pixels, patches)
    weights = copy_to(weights / weights.sum(1, keepdim=True), tokens.device)
    groups = copy_to(ranks[groups], tokens.device)
    attention = cut.attention.changed(lambda each: replace(each, patch_groups=groups, weights=weights))
    return replace(cut, features=tokens, grid=grid, prefix_features=None, attention=attention), pixels
