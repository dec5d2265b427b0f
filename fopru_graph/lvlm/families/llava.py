"""LLaVA-1.5: a CLIP tower, a two-layer MLP projector and a decoder-only language model; one tile an image."""

from __future__ import annotations

import time
from collections.abc import Sequence

import PIL.Image
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.device import home_of, to_device
from fopru_graph.lvlm.family import Family, read_layer
from fopru_graph.lvlm.tap import tap_attention
from fopru_graph.values import Image, Selection, Tile, TileAttention, Video, VisionFeatures, VisualTokens


class _Enough(Exception):
    """Raised inside the tower once the layer that the projector reads has run; the layers above it are never used."""


class Llava(Family):
    """`LlavaForConditionalGeneration`, e.g. ``llava-hf/llava-1.5-7b-hf``."""

    model_types = ("llava",)
    auto_class = "LlavaForConditionalGeneration"
    prefix = 1

    @property
    def run_layers(self) -> int:
        """See `Family.run_layers`."""
        return max(self._layer_indices(len(self.tower_layers))) + 1

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`; the tower stops after the deepest layer that ``vision_feature_layer`` names."""
        if not images:
            raise UserError("there is no image to encode", "give at least one")
        if any(isinstance(image, Video) for image in images):
            raise UserError(f"{self.model_types[0]} takes no videos", "give pictures, or choose a family with video")
        begin = time.perf_counter()
        pixels, owners = self._preprocess([image.picture for image in images if isinstance(image, Image)])
        return self._encoded(pixels, owners, [image.shape[-2:] for image in images], begin)

    def _encoded(
        self, pixels: torch.Tensor, owners: Sequence[int], sizes: Sequence[tuple[int, ...]], begin: float
    ) -> VisionFeatures:
        """The features of tiles (T, 3, H, W) whose preprocessing began at ``begin``; ``sizes`` are the images' own."""
        preprocess_ms = (time.perf_counter() - begin) * 1e3
        tower = self.tower
        with self.lock:
            features, query, key, scale = self._run_tower(to_device(pixels, home_of(tower)).to(tower.dtype))
        prefix = self.prefix if self.model.config.vision_feature_select_strategy == "default" else 0
        patch = tower.config.patch_size
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        tiles = tuple(
            Tile(features[i, prefix:], grid, owner, TileAttention(query[i], key[i], scale, prefix), place=place)
            for i, (owner, place) in enumerate(zip(owners, self._places(owners, sizes), strict=True))
        )
        processor = self.processor.image_processor
        return VisionFeatures(
            tiles=tiles,
            pixels=pixels.unbind(),
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            image_sizes=tuple((height, width) for height, width in sizes),
            preprocess_ms=preprocess_ms,
        )

    def _places(self, owners: Sequence[int], sizes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, int] | None]:
        """Each tile's (row, column) in its picture's grid of tiles; a picture is one tile here."""
        return [None] * len(owners)

    def _preprocess(self, pictures: list[PIL.Image.Image]) -> tuple[torch.Tensor, list[int]]:
        """Pixels (T, 3, H, W) of all tiles, and the image that each tile is of."""
        batch = self.processor.image_processor(pictures, return_tensors="pt")
        return batch["pixel_values"], list(range(len(pictures)))

    def _run_tower(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """Features (T, 1 + N, D), query and key (T, H, 1 + N, d) and the scale of the layer that is read."""
        tower, layers = self.tower, self.tower_layers
        wanted = self._layer_indices(len(layers))
        outputs: dict[int, torch.Tensor] = {}
        noted: list[tuple[torch.Tensor, torch.Tensor, float]] = []

        def keep(index: int, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            outputs[index] = output if isinstance(output, torch.Tensor) else output[0]
            if index == max(wanted):
                raise _Enough

        hooks = [
            layers[index].register_forward_hook(lambda _m, _i, output, index=index: keep(index, output))
            for index in sorted(set(wanted))
        ]
        try:
            with tap_attention(layers[wanted[-1]].self_attn, lambda q, k, s, _mask: noted.append((q, k, s))):
                tower(pixels)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        query, key, scale = noted[0]
        return torch.cat([outputs[index] for index in wanted], -1), query, key, scale

    def _layer_indices(self, depth: int) -> list[int]:
        """Encoder layers whose outputs the projector reads, see `read_layer`."""
        named = self.model.config.vision_feature_layer
        return [read_layer(one, depth) for one in (named if isinstance(named, list) else [named])]

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`; the projector works token by token, so projecting fewer tokens changes none of them."""
        chosen = self.chosen(features, selection)
        rows = self._project_rows([tile.features for tile in features.tiles], chosen)
        origin = tuple(torch.stack([torch.full_like(index, t), index], 1) for t, index in enumerate(chosen))
        return VisualTokens(rows.split([len(index) for index in chosen]), origin, features.counts)

    def _project_rows(self, features: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor]) -> torch.Tensor:
        """The chosen rows of all tiles through the projector, (ΣK, E)."""
        kept = torch.cat([tile[index] for tile, index in zip(features, chosen, strict=True)])
        rows: torch.Tensor = self.projector(kept.to(home_of(self.projector)))  # a disk cache gives CPU tensors
        return rows
