"""LLaVA-1.5: a CLIP tower, a two-layer MLP projector and a decoder-only language model; one tile an image."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import tap_attention
from fopru_graph.lvlm.families.family import Family, read_layer
from fopru_graph.lvlm.inputs.resolution import shrunken_pixels
from fopru_graph.lvlm.loading.device import home_of, to_device
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

    @property
    def scored_layer(self) -> int:
        """See `Family.scored_layer`; of several layers that the projector reads, the one named last."""
        return self._layer_indices(len(self.tower_layers))[-1]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """See `Family.encode`; the tower stops after the deepest layer that ``vision_feature_layer`` names.

        A picture with a lower `Image.resolution` is preprocessed as always and then made smaller: the tower sees fewer
        patches, with its position embeddings interpolated.
        """
        if not images:
            raise UserError("there is no image to encode", "give at least one")
        if any(isinstance(image, Video) for image in images):
            raise UserError(f"{self.model_types[0]} takes no videos", "give pictures, or choose a family with video")
        begin = time.perf_counter()
        pixels, owners, sizes = self._preprocess([image for image in images if isinstance(image, Image)])
        return self._encoded(pixels, owners, sizes, begin)

    def _encoded(
        self, pixels: Sequence[torch.Tensor], owners: Sequence[int], sizes: Sequence[tuple[int, ...]], begin: float
    ) -> VisionFeatures:
        """The features of tiles (3, H, W) whose preprocessing began at ``begin``; ``sizes`` are the images' own."""
        preprocess_ms = (time.perf_counter() - begin) * 1e3
        prefix = self.prefix if self.model.config.vision_feature_select_strategy == "default" else 0
        patch = self.tower.config.patch_size
        tiles = []
        encoded = zip(pixels, self._tower_outputs(pixels), owners, self._places(owners, sizes), strict=True)
        for one, (features, query, key, scale), owner, place in encoded:
            grid = (one.shape[-2] // patch, one.shape[-1] // patch)
            attention = TileAttention(query, key, scale, prefix)
            leading = features[:prefix]
            tiles.append(Tile(features[prefix:], grid, owner, attention, tile_position=place, prefix_features=leading))
        processor = self.processor.image_processor
        return VisionFeatures(
            tiles=tuple(tiles),
            pixels=tuple(pixels),
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            image_sizes=tuple((height, width) for height, width in sizes),
            preprocess_ms=preprocess_ms,
        )

    def _places(self, owners: Sequence[int], sizes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, int] | None]:
        """Each tile's (row, column) in its picture's grid of tiles; a picture is one tile here."""
        return [None] * len(owners)

    def _preprocess(self, images: list[Image]) -> tuple[list[torch.Tensor], list[int], list[tuple[int, int]]]:
        """Pixels (3, H, W) of all tiles, the image that each tile is of, and the images' (height, width)."""
        batch = self.processor.image_processor([image.picture for image in images], return_tensors="pt")
        patch = self.tower.config.patch_size
        pairs = zip(batch["pixel_values"], images, strict=True)
        pixels = [shrunken_pixels(one, image.resolution, patch) for one, image in pairs]
        return pixels, list(range(len(images))), [image.shape for image in images]

    def _tower_outputs(
        self, pixels: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
        """What `_run_tower` gives for each tile (3, H, W); tiles of one size go through the tower together."""
        found: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = {}
        for shape in dict.fromkeys(one.shape for one in pixels):
            same = [tile for tile, one in enumerate(pixels) if one.shape == shape]
            batch = to_device(torch.stack([pixels[tile] for tile in same]), home_of(self.tower))
            with self.lock:
                *tensors, scale = self._run_tower(batch.to(self.tower.dtype))
            found |= {tile: (*(tensor[i] for tensor in tensors), scale) for i, tile in enumerate(same)}
        return [found[tile] for tile in range(len(pixels))]

    def _run_tower(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """Features (T, 1 + N, D), query and key (T, H, 1 + N, d) and the scale of the layer that is read."""
        tower, layers = self.tower, self.tower_layers
        usual = pixels.shape[-2:] == (tower.config.image_size,) * 2
        sized = {} if usual else {"interpolate_pos_encoding": True}
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
            with tap_attention(self.tapped, lambda q, k, s, _mask: noted.append((q, k, s))):
                tower(pixels, **sized)
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
    def attention_above(self, features: VisionFeatures) -> tuple[TileAttention, ...]:
        """See `Family.attention_above`: the norm and two projections of one layer, nothing else of it runs."""
        above = self.scored_layer + 1
        if above == len(self.tower_layers):
            raise UserError(
                f"there is no encoder layer above the one that is read: layer {above - 1} is the last",
                "leave AttentionAbove out: wire its readers to VisionEncode",
            )
        return tuple(self._attention_in(above, tile) for tile in features.tiles)

    def _attention_in(self, above: int, tile: Tile) -> TileAttention:
        """A tile's attention in the layer that its features go into."""
        if tile.prefix_features is None:
            raise UserError(
                "these features were projected already, so no encoder layer takes them in",
                "leave AttentionAbove out: wire its readers to VisionEncode",
            )
        layer, module = self.tower_layers[above], self.attention_module(above)
        # Of several layers' features, side by side, the last are those of the layer below.
        whole = torch.cat([tile.prefix_features, tile.features])[:, -self.tower_width :]
        hidden = layer.layer_norm1(whole.to(home_of(layer)))
        query, key = (
            project(hidden).unflatten(-1, (-1, module.head_dim)).transpose(0, 1)
            for project in (module.q_proj, module.k_proj)
        )
        return TileAttention(query, key, module.scale, tile.attention.prefix)

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
