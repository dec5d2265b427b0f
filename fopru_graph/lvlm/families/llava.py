"""LLaVA-1.5: a CLIP tower, a two-layer MLP projector and a decoder-only language model; one tile an image."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.modules import copy_to, entering, execution_device
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.families.towers import read_layer
from fopru_graph.values import Image, Selection, Tile, TileAttention, Video, VisionFeatures, VisualTokens

_ROUNDING = 1e-6  # 24 · √(1/9) patches are 8, although the square root is a hair off


class _TowerDone(Exception):
    """Raised inside the tower when the layers that the projector reads have run; those above them are never used."""


@register_family(
    "llava",
    checkpoints=("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"),
    tokens="576",
    projects="only those kept",
    proven_on="random tiny models, the bundled trained demo",
)
class Llava(Family):
    """`LlavaForConditionalGeneration`, e.g. ``llava-hf/llava-1.5-7b-hf``."""

    auto_class = "LlavaForConditionalGeneration"
    towers = {"clip_vision_model": 1, "siglip_vision_model": 0}  # CLIP's CLS

    @property
    def run_layers(self) -> int:
        return max(self._read_layers()) + 1

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; if the projector reads several layers, the one named last."""
        return self._read_layers()[-1]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`; the tower stops after the deepest layer that ``vision_feature_layer`` names.

        A picture with a lower `Image.resolution` is preprocessed as usual and then shrunk: the tower sees fewer patches
        and interpolates its position embeddings.
        """
        if not images:
            raise UserError("there is no image to encode", "give at least one")
        if any(isinstance(image, Video) for image in images):
            raise UserError(f"{self.model_type} takes no videos", "give pictures, or choose a family with video")
        begin = time.perf_counter()
        return self._encode_pictures([image for image in images if isinstance(image, Image)], begin)

    def _encode_pictures(self, images: list[Image], begin: float) -> VisionFeatures:
        """Preprocess, which began at ``begin`` (`time.perf_counter`), and run the tower; a picture is one tile here."""
        batch = self.processor.image_processor([image.picture for image in images], return_tensors="pt")
        patch = self.tower.config.patch_size
        pairs = zip(batch["pixel_values"], images, strict=True)
        pixels = [shrink_pixels(tile_pixels, image.resolution, patch) for tile_pixels, image in pairs]
        return self._encode_tiles(pixels, range(len(images)), [image.shape for image in images], begin)

    @torch.inference_mode()
    def _encode_prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> VisionFeatures:
        pixels = inputs["pixel_values"].unbind()
        return self._encode_tiles(pixels, range(len(pixels)), [tile.shape[-2:] for tile in pixels], time.perf_counter())

    def _encode_tiles(
        self,
        pixels: Sequence[torch.Tensor],
        images: Sequence[int],
        sizes: Sequence[Sequence[int]],
        begin: float,
        tile_positions: Sequence[tuple[int, int] | None] | None = None,
    ) -> VisionFeatures:
        """The features of tiles (3, H, W), given each tile's image and position, and the images' (height, width).

        Preprocessing began at ``begin`` and is over now.
        """
        preprocess_ms = (time.perf_counter() - begin) * 1e3
        prefix, patch = self.prefix, self.tower.config.patch_size
        positions = tile_positions or [None] * len(pixels)
        tiles = [
            Tile(
                features=features[prefix:],
                grid=(tile_pixels.shape[-2] // patch, tile_pixels.shape[-1] // patch),
                image=image,
                attention=attention,
                tile_position=position,
                prefix_features=features[:prefix],
            )
            for tile_pixels, (features, attention), image, position in zip(
                pixels, self._tower_outputs(pixels), images, positions, strict=True
            )
        ]
        return self.vision_features(tiles, [tile_pixels.cpu() for tile_pixels in pixels], sizes, preprocess_ms)

    def _tower_outputs(self, pixels: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, TileAttention]]:
        """Each tile's features (1 + N, D) and attention; tiles (3, H, W) of one size go through the tower together."""
        outputs: dict[int, tuple[torch.Tensor, TileAttention]] = {}
        shapes = list(dict.fromkeys(tile.shape for tile in pixels))
        for part, shape in enumerate(shapes):
            same_shape = [i for i, tile in enumerate(pixels) if tile.shape == shape]
            batch = copy_to(torch.stack([pixels[i] for i in same_shape]), execution_device(self.tower))
            with self.lock:
                features, calls = self._run_tower(batch.to(self.tower.dtype), part, len(shapes))
            outputs |= {i: (features[j], self._tile_attention(calls, j)) for j, i in enumerate(same_shape)}
        return [outputs[i] for i in range(len(pixels))]

    def _tile_attention(self, calls: dict[int, list[Attention]], tile: int) -> TileAttention:
        """A tile's attention in the scored layer, with that in all other recorded ones."""
        prefix = self.prefix
        scored, *others = (
            TileAttention(call.query[tile], call.key[tile], call.scale, prefix, has_cls=prefix > 0, layer=layer)
            for layer, (call,) in calls.items()
        )
        return replace(scored, others=tuple(others))

    def _run_tower(
        self, pixels: torch.Tensor, part: int, parts: int
    ) -> tuple[torch.Tensor, dict[int, list[Attention]]]:
        """Features (T, 1 + N, D) of the read layers, and each recorded layer's only call, of T tiles.

        These are the ``part``-th, from 0, of ``parts`` groups of tiles of one size.
        """
        tower, layers, read = self.tower, self.tower_layers, self._read_layers()
        usual_size = pixels.shape[-2:] == (tower.config.image_size,) * 2
        options = {} if usual_size else {"interpolate_pos_encoding": True}
        last = max([*read, *self.taps])
        outputs: dict[int, torch.Tensor] = {}

        def keep(index: int, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            outputs[index] = output if isinstance(output, torch.Tensor) else output[0]
            if index == last:
                raise _TowerDone

        hooks = [
            layers[index].register_forward_hook(lambda _m, _i, output, index=index: keep(index, output))
            for index in sorted({*read, last})
        ]
        try:
            with self.recorded_attention(part, parts) as calls, contextlib.suppress(_TowerDone):
                tower(pixels, **options)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([outputs[index] for index in read], -1), calls

    def _read_layers(self) -> list[int]:
        """Tower layers whose outputs the projector reads, see `read_layer`."""
        named = self.model.config.vision_feature_layer
        return [read_layer(layer, len(self.tower_layers)) for layer in (named if isinstance(named, list) else [named])]

    @torch.inference_mode()
    def attention_above(self, features: VisionFeatures) -> tuple[TileAttention, ...]:
        """See `Family.attention_above`: the norm and two projections of one layer run, and nothing else."""
        above = self.scored_layer + 1
        if above == len(self.tower_layers):
            raise UserError(
                f"there is no encoder layer above the one that is read: layer {above - 1} is the last",
                "leave AttentionAbove out: wire its readers to VisionEncode",
            )
        return tuple(self._attention_in(above, tile) for tile in features.tiles)

    def _attention_in(self, layer_index: int, tile: Tile) -> TileAttention:
        """A tile's attention in the layer that takes its features in."""
        if tile.prefix_features is None:
            raise UserError(
                "these features were projected already, so no encoder layer takes them in",
                "leave AttentionAbove out: wire its readers to VisionEncode",
            )
        layer, module = self.tower_layers[layer_index], self.attention_module(layer_index)
        # If the projector reads several layers, their features lie side by side; the last are those of the layer below.
        features = torch.cat([tile.prefix_features, tile.features])[:, -self.tower_width :]
        hidden = layer.layer_norm1(entering(layer, features))
        query, key = (
            project(hidden).unflatten(-1, (-1, module.head_dim)).transpose(0, 1)
            for project in (module.q_proj, module.k_proj)
        )
        return replace(tile.attention, query=query, key=key, scale=module.scale, layer=layer_index, others=())

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`; the projector works token by token, so projecting fewer tokens changes none of them."""
        kept = self.kept_indices(features, selection)
        embeddings = self._embed_tokens(features.tiles, kept)
        origin = tuple(torch.stack([torch.full_like(index, t), index], 1) for t, index in enumerate(kept))
        return VisualTokens(embeddings.split([len(index) for index in kept]), origin, features.counts, tuple(kept))

    @torch.inference_mode()
    def projected(self, features: VisionFeatures) -> VisionFeatures:
        """See `Family.projected`; tiles that are projected already stay as they are."""
        raw = [tile for tile in features.tiles if tile.prefix_features is not None]
        if not raw:
            return features
        every = [torch.arange(len(tile.features), device=tile.features.device) for tile in raw]
        parts = iter(self._embed_tokens(raw, every).split([len(index) for index in every]))
        tiles = (
            tile if tile.prefix_features is None else replace(tile, features=next(parts), prefix_features=None)
            for tile in features.tiles
        )
        return features.with_tiles(tuple(tiles))

    def _embed_tokens(self, tiles: Sequence[Tile], kept: Sequence[torch.Tensor]) -> torch.Tensor:
        """The kept tokens of all tiles through the projector, (ΣK, E); as they are if they are projected already."""
        tokens = torch.cat([tile.features[index] for tile, index in zip(tiles, kept, strict=True)])
        if tiles[0].prefix_features is None:
            return tokens
        embeddings: torch.Tensor = self.projector(entering(self.projector, tokens))
        return embeddings


def shrink_pixels(pixels: torch.Tensor, resolution: float, patch: int) -> torch.Tensor:
    """Preprocessed pixels of a tile, shrunk to whole patches: ⌊patches · √resolution⌋ a side, at least one.

    Args:
        pixels: (3, H, W), H and W multiples of ``patch``; returned as they are if ``resolution`` is 1.
        resolution: share of the pixels, in (0, 1].
        patch: pixels along a side of a patch.
    """
    if resolution == 1:
        return pixels
    scale = math.sqrt(resolution)
    size = [max(1, math.floor(side // patch * scale + _ROUNDING)) * patch for side in pixels.shape[-2:]]
    return torch.nn.functional.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]
