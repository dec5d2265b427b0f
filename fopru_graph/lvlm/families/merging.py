"""Shared by families whose projector merges patches: the stock model projects all visual tokens, then some are dropped.

Their projectors work on each visual token by itself, so dropping after projecting changes no value.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.modules import copy_to, execution_device
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.values import Image, Selection, Tile, TileAttention, Video, VisionFeatures, VisualTokens

Grid = tuple[int, int]  # (h, w) of a tile, in visual tokens
TilePosition = tuple[int, int] | None  # see `Tile.tile_position`


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures ready for the stock model.

    ``inputs`` are keyword arguments of ``get_image_features``. For each image, ``tile_counts`` is its number of tiles
    and ``markup`` the text that stands for it in the prompt. For each tile, ``pixels`` holds a (3, H, W) float tensor
    and ``tile_positions`` its (row, column) in its picture's grid of tiles, None for a tile that shows all of it; no
    positions if no picture is cut.
    """

    inputs: dict[str, Any]
    pixels: Sequence[torch.Tensor]
    tile_counts: Sequence[int]
    markup: Sequence[str]
    tile_positions: Sequence[TilePosition] = ()


class MergingFamily(Family):
    """A family whose visual tokens come from the stock ``get_image_features``, tile by tile."""

    @abstractmethod
    def prepare(self, pictures: list[PIL.Image.Image]) -> Prepared:
        """Preprocess pictures without torchvision."""

    def prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> Prepared:
        """What a stock processor prepared, see `Family.encode_prepared`; the prompt is there, so there is no markup.

        Override it if a picture is not one tile, or the model takes more than its pixels.
        """
        pixels = inputs["pixel_values"]
        return Prepared({"pixel_values": pixels}, pixels, [1] * len(pixels), ())

    def prepare_videos(self, videos: list[Video]) -> Prepared:
        """Preprocess videos; a frame, or what the model merges of several, is a tile.

        Raises:
            UserError: the family takes no videos.
        """
        raise UserError(f"{self.model_type} takes no videos", "give pictures, or choose a family with video")

    @property
    def merge_side(self) -> int:
        """Patches along a side of a visual token."""
        return 1

    @property
    def patches(self) -> int:
        return self.merge_side**2

    def grid_of(self, pixels: torch.Tensor) -> Grid:
        """Visual tokens (h, w) of a tile's pixels (…, H, W)."""
        patch = self.model.config.vision_config.patch_size
        high, wide = (patch, patch) if isinstance(patch, int) else patch
        return pixels.shape[-2] // high // self.merge_side, pixels.shape[-1] // wide // self.merge_side

    def patch_groups(self, grid: Grid) -> torch.Tensor:
        """The patches (N, m) that are merged into each visual token of a tile of (h, w) tokens.

        Override it if the model orders a tile's patches otherwise than row by row.
        """
        (high, wide), side = grid, self.merge_side
        numbers = torch.arange(high * wide * side**2).view(high, side, wide, side)
        return numbers.transpose(1, 2).reshape(-1, side**2)

    def patch_groups_of(self, grids: Sequence[Grid], device: torch.device) -> list[torch.Tensor]:
        """The `patch_groups` of tiles on a device; tiles of one grid share them."""
        known = {grid: copy_to(self.patch_groups(grid), device) for grid in dict.fromkeys(grids)}
        return [known[grid] for grid in grids]

    def deepstack(self, output: Any, grids: Sequence[Grid]) -> list[tuple[torch.Tensor, ...]]:
        """Each tile's DeepStack features, one (N, E) tensor per DeepStack layer; none by default."""
        return [()] * len(grids)

    def tower_faster(self) -> AbstractContextManager[None]:
        """Entered while the tower runs; override it if parts of the stock tower can be run faster."""
        return nullcontext()

    def attentions(self, calls: Sequence[Attention], grids: Sequence[Grid]) -> list[TileAttention]:
        """Each tile's queries and keys. By default one call of (T, H, P + M, d) holds all T tiles."""
        (call,) = calls
        return [
            TileAttention(
                call.query[i],
                call.key[i],
                call.scale,
                self.prefix,
                groups,
                has_cls=self.prefix > 0,
            )
            for i, groups in enumerate(self.patch_groups_of(grids, call.query.device))
        ]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`.

        A picture with a lower `Image.resolution` is shrunk before the family's own preprocessing. That gives fewer
        visual tokens only if their number follows the picture's size: in Qwen-VL, Mistral 3, and InternVL by whole
        tiles. Gemma 3, PaliGemma, Idefics3 and SmolVLM resize every picture to one size and keep their number.
        """
        begin = time.perf_counter()
        images = [shrink(image) if isinstance(image, Image) else image for image in images]
        pictures = [image.picture for image in images if isinstance(image, Image)]
        videos = [video for video in images if isinstance(video, Video)]
        if bool(pictures) == bool(videos):
            raise UserError("there must be pictures or videos to encode, not both", "give one kind, and at least one")
        prepared = self.prepare(pictures) if pictures else self.prepare_videos(videos)
        preprocess_ms = (time.perf_counter() - begin) * 1e3
        return self._run_tower(prepared, [image.shape[-2:] for image in images], preprocess_ms, videos)

    @torch.inference_mode()
    def _encode_prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> VisionFeatures:
        prepared = self.prepared(inputs, ids)
        firsts = list(accumulate([0, *prepared.tile_counts]))[:-1]  # of each image; how large it was nobody knows
        return self._run_tower(prepared, [tuple(prepared.pixels[first].shape[-2:]) for first in firsts], 0.0)

    def _run_tower(
        self,
        prepared: Prepared,
        image_sizes: Sequence[Sequence[int]],
        preprocess_ms: float,
        videos: Sequence[Video] = (),
    ) -> VisionFeatures:
        """Encode what is prepared, of pictures or else of ``videos``."""
        with self.lock, self.tower_faster(), self.recorded_attention() as calls:
            core = self.model.model
            takes_videos = videos and hasattr(core, "get_video_features")  # else frames are pictures to the model
            encode = core.get_video_features if takes_videos else core.get_image_features
            output = encode(**self._on_tower(prepared.inputs))
        grids = list(map(self.grid_of, prepared.pixels))
        tokens = torch.cat([embeddings.flatten(0, -2) for embeddings in output.pooler_output])
        parts = zip(
            tokens.split([h * w for h, w in grids]),
            grids,
            [image for image, count in enumerate(prepared.tile_counts) for _ in range(count)],
            self._tile_attentions(calls, grids),
            self.deepstack(output, grids),
            prepared.tile_positions or [None] * len(grids),
            strict=True,
        )
        return self.vision_features(
            [Tile(*part) for part in parts],
            [tile.cpu() for tile in prepared.pixels],
            image_sizes,
            preprocess_ms,
            markup=tuple(prepared.markup),
            video=bool(videos),
            frame_rates=tuple(video.frame_rate for video in videos),
        )

    def _tile_attentions(self, calls: dict[int, list[Attention]], grids: Sequence[Grid]) -> list[TileAttention]:
        """Each tile's attention in the scored layer, with that in all other recorded ones."""
        layers = []
        for layer, recorded in calls.items():
            try:
                tiles = self.attentions(recorded, grids)
            except ValueError as error:  # another number of calls than of tiles
                raise UserError(
                    f"encoder layer {layer} sees pictures in windows: there is no attention between all patches",
                    f"choose a layer that sees all of it, such as {self.scored_layer}",
                ) from error
            layers.append([replace(tile, layer=layer) for tile in tiles])
        return [replace(scored, others=tuple(others)) for scored, *others in zip(*layers, strict=True)]

    def _on_tower(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs on the tower's device, pixels in its type."""
        device, dtype = execution_device(self.tower), self.tower.dtype

        def move(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            copied = copy_to(value, device)
            return copied.to(dtype) if value.is_floating_point() else copied

        return {name: move(value) for name, value in inputs.items()}

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`: the tokens are projected already, and the kept ones are taken."""
        kept = self.kept_indices(features, selection)
        images = range(len(features.image_sizes))
        tiles_of = [[t for t, tile in enumerate(features.tiles) if tile.image == image] for image in images]
        embeddings, origin, keep_positions, encoded, deepstack, grids = [], [], [], [], [], []
        for tiles in tiles_of:
            offsets = [sum(features.counts[t] for t in tiles[:i]) for i in range(len(tiles))]  # tiles are in order
            embeddings.append(torch.cat([features.tiles[t].features[kept[t]] for t in tiles]))
            origin.append(torch.cat([torch.stack([torch.full_like(kept[t], t), kept[t]], 1) for t in tiles]))
            keep_positions.append(torch.cat([offset + kept[t] for offset, t in zip(offsets, tiles, strict=True)]))
            encoded.append(sum(features.counts[t] for t in tiles))
            layers = zip(*(features.tiles[t].deepstack for t in tiles), strict=True)
            deepstack.append(
                tuple(torch.cat([layer[kept[t]] for layer, t in zip(parts, tiles, strict=True)]) for parts in layers)
            )
            grids.append((len(tiles), *features.tiles[tiles[0]].grid))
        return VisualTokens(
            tuple(embeddings),
            tuple(origin),
            tuple(encoded),
            tuple(keep_positions),
            tuple(deepstack),
            tuple(grids),
            features.markup,
            features.video,
            tile_counts=tuple(tuple(len(kept[t]) for t in tiles) for tiles in tiles_of),
            frame_rates=features.frame_rates,
        )
