"""What families share whose projector merges patches: all rows are projected by the stock model, then some are dropped.

Their projectors work on every visual token by itself, so dropping after projecting changes nothing but a little time.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import tap_attention
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.resolution import shrunken
from fopru_graph.lvlm.loading.device import home_of, to_device
from fopru_graph.values import Image, Selection, Tile, TileAttention, Video, VisionFeatures, VisualTokens


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures ready for the stock model.

    ``inputs`` are keyword arguments of ``get_image_features``; ``grids`` holds each tile's (h, w) in visual tokens and
    ``owners`` its image; ``pixels`` a (3, H, W) float tensor a tile, for pictures of what was kept; ``markup`` the text
    that stands for each image in the prompt; ``tile_positions`` each tile's (row, column) in its picture's grid of
    tiles, None for one that shows all of it, or nothing where no picture is cut.
    """

    inputs: dict[str, Any]
    grids: tuple[tuple[int, int], ...]
    owners: tuple[int, ...]
    pixels: tuple[torch.Tensor, ...]
    markup: tuple[str, ...]
    tile_positions: tuple[tuple[int, int] | None, ...] = ()


class MergingFamily(Family):
    """A family whose visual tokens are rows of the stock ``get_image_features``, tile by tile."""

    @abstractmethod
    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """Preprocess pictures without torchvision."""

    def prepare_videos(self, videos: list[list[PIL.Image.Image]]) -> Prepared:
        """Preprocess videos, given as lists of frames; a frame (or what the model merges of several) is a tile.

        Raises:
            UserError: the family has no videos.
        """
        raise UserError(f"{self.model_types[0]} takes no videos", "give pictures, or choose a family with video")

    def embeddings(self, output: Any, prepared: Prepared) -> list[torch.Tensor]:
        """Each tile's projected visual tokens (N, E), from what ``get_image_features`` gave."""
        pooled = output.pooler_output
        flat = torch.cat([one.flatten(0, -2) for one in pooled])
        return list(flat.split([h * w for h, w in prepared.grids]))

    def deepstack(self, output: Any, prepared: Prepared) -> list[tuple[torch.Tensor, ...]]:
        """Each tile's further features for DeepStack; none here."""
        return [()] * len(prepared.grids)

    def attentions(
        self, noted: Sequence[tuple[torch.Tensor, torch.Tensor, float]], prepared: Prepared
    ) -> list[TileAttention]:
        """Each tile's queries and keys, from the calls of the tapped module: (T, H, P + M, d) of one call here."""
        ((query, key, scale),) = noted
        units = [None if one is None else one.to(query.device) for one in map(self.patch_groups, prepared.grids)]
        return [TileAttention(query[i], key[i], scale, self.prefix, unit) for i, unit in enumerate(units)]

    def patch_groups(self, grid: tuple[int, int]) -> torch.Tensor | None:
        """The patches (N, m) that are merged into each visual token of a tile of (h, w) tokens; None for one each."""
        return None

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`.

        A picture with a lower `Image.resolution` is made smaller before the family's own preprocessing. Fewer visual
        tokens come of it only where these follow a picture's size: in Qwen-VL, Mistral 3, and InternVL by whole tiles.
        Those that resize every picture to one size (Gemma 3, PaliGemma, Idefics3, SmolVLM) keep their number.
        """
        begin = time.perf_counter()
        images = [shrunken(image) if isinstance(image, Image) else image for image in images]
        pictures = [image.picture for image in images if isinstance(image, Image)]
        videos = [list(video.frames) for video in images if isinstance(video, Video)]
        if bool(pictures) == bool(videos):
            raise UserError("there must be pictures or videos to encode, not both", "give one kind, and at least one")
        prepared = self.prepare(pictures) if pictures else self.prepare_videos(videos)
        preprocess_ms = (time.perf_counter() - begin) * 1e3
        noted: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        with self.lock, tap_attention(self.tapped, lambda q, k, scale, _mask: noted.append((q, k, scale))):
            core = self.model.model
            films = not pictures and hasattr(core, "get_video_features")  # else frames are pictures to the model
            features = core.get_video_features if films else core.get_image_features
            output = features(**self._placed(prepared.inputs))
        parts = zip(
            self.embeddings(output, prepared),
            prepared.grids,
            prepared.owners,
            self.attentions(noted, prepared),
            self.deepstack(output, prepared),
            prepared.tile_positions or (None,) * len(prepared.grids),
            strict=True,
        )
        processor = self.processor.image_processor
        return VisionFeatures(
            tiles=tuple(Tile(*part) for part in parts),
            pixels=prepared.pixels,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            image_sizes=tuple(image.shape[-2:] for image in images),
            preprocess_ms=preprocess_ms,
            markup=prepared.markup,
            video=not pictures,
        )

    def _placed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs on the tower's device, pixels in its type."""
        home, dtype = home_of(self.tower), self.tower.dtype
        return {
            name: to_device(value, home).to(dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value.to(home)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
        }

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`; the rows are there, some are taken."""
        chosen = self.chosen(features, selection)
        images = range(len(features.image_sizes))
        tiles = {image: [t for t, tile in enumerate(features.tiles) if tile.image == image] for image in images}
        taken = [tile.features[index] for tile, index in zip(features.tiles, chosen, strict=True)]
        deep = [[layer[index] for layer in tile.deepstack] for tile, index in zip(features.tiles, chosen, strict=True)]
        firsts = {t: sum(features.counts[u] for u in tiles[i] if u < t) for i in images for t in tiles[i]}
        origin = [torch.stack([torch.full_like(index, t), index], 1) for t, index in enumerate(chosen)]
        grids = [features.tiles[tiles[image][0]].grid for image in images]
        return VisualTokens(
            embeddings=tuple(torch.cat([taken[t] for t in tiles[image]]) for image in images),
            origin=tuple(torch.cat([origin[t] for t in tiles[image]]) for image in images),
            encoded=tuple(sum(features.counts[t] for t in tiles[image]) for image in images),
            keep_positions=tuple(torch.cat([firsts[t] + chosen[t] for t in tiles[image]]) for image in images),
            deepstack=tuple(
                tuple(torch.cat(layer) for layer in zip(*(deep[t] for t in tiles[image]), strict=True))
                for image in images
            ),
            grids=tuple((len(tiles[image]), *grid) for image, grid in zip(images, grids, strict=True)),
            markup=features.markup,
            video=features.video,
        )


def squares(grid: tuple[int, int], side: int) -> torch.Tensor:
    """Numbers (N, side²) of the patches under each token of a grid (h, w), where side × side patches become one."""
    high, wide = grid
    numbers = torch.arange(high * wide * side * side).view(high, side, wide, side)
    return numbers.transpose(1, 2).reshape(-1, side * side)
