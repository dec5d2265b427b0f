"""LLaVA-OneVision: a SigLIP tower; pictures cut into tiles as by LLaVA-NeXT, or whole, or videos with pooled frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import PIL.Image
import torch
from transformers.models.llava_onevision.modeling_llava_onevision import get_anyres_image_grid_shape

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.llava_next import NEWLINE, LlavaNext
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.values import Image, Selection, Video, VisionFeatures, VisualTokens


@register_family(
    "llava_onevision",
    checkpoints=("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    tokens="up to about 8900: 729 of the overview, then 729 a tile and a newline a row; 196 a video frame",
    video=True,
    note="more than about ten tiles are shrunk; VisionEncode's together takes each picture as one tile",
)
class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`, e.g. ``llava-hf/llava-onevision-qwen2-7b-ov-hf``.

    After projecting, the model shrinks a picture of more than about ten tiles (``anyres_max_9``), so that a visual
    token is a mixture of up to four patches. Such a token belongs to the patch under its centre: it has that patch's
    score and position, stays if that patch is kept, and its embedding is the model's mixture. No two tokens share a
    patch. Patches under no token's centre are dropped even if they were selected, like patches of padding.
    """

    auto_class = "LlavaOnevisionForConditionalGeneration"

    @property
    def _side(self) -> int:
        """Patches along a side of a tile."""
        config = self.model.config.vision_config
        return int(config.image_size // config.patch_size)

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
        weights, groups = weights.to(pooled.device), groups.to(pooled.device)
        side = (self._side + 1) // 2
        tiles = [
            replace(
                tile,
                features=tokens,
                grid=(side, side),
                tile_position=None,
                prefix_features=None,
                attention=replace(tile.attention, patch_groups=groups, weights=weights),
            )
            for tile, tokens in zip(features.tiles, pooled, strict=True)
        ]
        return replace(features, tiles=tuple(tiles))

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

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `LlavaNext.project`; a video's tokens are followed by one newline."""
        if features.tiles[0].attention.patch_groups is None:
            return super().project(features, selection)
        kept = self.kept_indices(features, selection)
        newline, embeddings, origin, encoded = self._newline()[None], [], [], []
        for video in range(len(features.image_sizes)):
            frames = [t for t, tile in enumerate(features.tiles) if tile.image == video]
            tokens = [features.tiles[t].features[kept[t]].to(newline) for t in frames]
            embeddings.append(torch.cat([*tokens, newline]))
            origins = [torch.stack([torch.full_like(kept[t], t), kept[t]], 1) for t in frames]
            origin.append(torch.cat([*origins, torch.full_like(origins[0][:1], NEWLINE)]))
            encoded.append(sum(features.counts[t] for t in frames) + 1)
        return VisualTokens(tuple(embeddings), tuple(origin), tuple(encoded))

    def _embeddings(self, features: VisionFeatures, patches: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """See `LlavaNext._embeddings`; all tokens are projected, as a slot may mix in patches that are not kept."""
        every = [torch.arange(count) for count in features.counts]
        projected = self._project_kept([tile.features for tile in features.tiles], every).to(self.device)
        packed = torch.cat(self._pack(projected.split(features.counts), features, self._newline()))
        return packed[alive.to(packed.device)]

    def _pack(
        self, tiles: Sequence[torch.Tensor], features: VisionFeatures, newline: torch.Tensor
    ) -> list[torch.Tensor]:
        """Tiles (N, C) as the model packs them: (slots, C) for each image."""
        owners = [tile.image for tile in features.tiles]
        packed, _ = self.model.model.pack_image_features(
            list(torch.stack(list(tiles)).split([owners.count(image) for image in range(len(features.image_sizes))])),
            [list(size) for size in features.image_sizes],
            image_newline=newline,
            vision_aspect_ratio=self.model.config.vision_aspect_ratio,
        )
        return list(packed)

    def _packed(self, features: VisionFeatures) -> list[torch.Tensor]:
        """See `LlavaNext._packed`. Here the stock packing runs on the patches' coordinates (y, x) in the picture.

        It may shrink them bilinearly: coordinates then become those of the slots' centres, while patch numbers would be
        mixed to nonsense.
        """
        owners = [tile.image for tile in features.tiles]
        counts = [owners.count(image) for image in range(len(features.image_sizes))]
        firsts = [sum(counts[:image]) * self._side**2 for image in range(len(counts))]  # patch number of each image
        coordinates = torch.zeros(sum(features.counts), 2)
        grids = list(map(self._numbers, firsts, counts, features.image_sizes))
        for grid in grids:
            axes = (torch.arange(length) for length in grid.shape)
            coordinates[grid.flatten()] = torch.cartesian_prod(*axes).float()
        packed = self._pack(coordinates.split(features.counts), features, torch.full((2,), float(NEWLINE)))
        slots = []
        for grid, centres, first, count in zip(grids, packed, firsts, counts, strict=True):
            y, x = centres.round().long().clamp(min=0).unbind(1)
            numbers = grid[y, x].masked_fill(centres[:, 0] < 0, NEWLINE)
            if count > 1:  # the overview comes first and is not shrunk
                numbers[: self._side**2] = torch.arange(first, first + self._side**2)
            slots.append(numbers)
        return slots

    def _numbers(self, first: int, tiles: int, size: tuple[int, int]) -> torch.Tensor:
        """The numbers (H, W) of an image's patches as they lie in the picture, without those of the overview."""
        side, config = self._side, self.model.config
        if tiles == 1:
            return torch.arange(first, first + side * side).view(side, side)
        high, wide = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
        numbers = torch.arange(first + side * side, first + tiles * side * side)
        return numbers.view(high, wide, side, side).transpose(1, 2).reshape(high * side, wide * side)
