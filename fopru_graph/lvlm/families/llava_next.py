"""LLaVA-1.6 (LLaVA-NeXT): an overview tile and a grid of tiles per image, unpadded, with a newline after every row.

*Packing* is what the stock model does with the tiles of an image: it puts them side by side, deletes padding, and
inserts the newline embedding. Patches that it deletes are no visual tokens, so no budget and no score knows them. The
*slots* of an image are the places in its packed sequence: its visual tokens, and the newlines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from accelerate.utils import align_module_device
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, image_size_to_num_patches

from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.modules import copy_to
from fopru_graph.lvlm.families.padding import SeenTile, only_patches
from fopru_graph.lvlm.families.registry import register_family
from fopru_graph.lvlm.inputs.images import shrink
from fopru_graph.values import Image, Selection, Tile, VisionFeatures, VisualTokens

NEWLINE = -1


@register_family(
    "llava_next",
    checkpoints=(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llava-v1.6-vicuna-13b-hf",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    tokens="up to 2880: 576 a tile, without those of padding; and a newline a row, which no ratio counts",
    projects="only those kept",
    note="a newline stays while its row has a token",
)
class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`, e.g. ``llava-hf/llava-v1.6-vicuna-7b-hf``.

    A picture with a lower `Image.resolution` is shrunk before it is cut, so it may have fewer tiles; the fewest are an
    overview and the smallest grid of the checkpoint.
    """

    auto_class = "LlavaNextForConditionalGeneration"

    @property
    def _side(self) -> int:
        """Patches along a side of a tile."""
        config = self.model.config.vision_config
        return int(config.image_size // config.patch_size)

    def _encode_pictures(self, images: list[Image], begin: float) -> VisionFeatures:
        """See `Llava._encode_pictures`: the overview comes first and has no position, the others come row by row."""
        images = [shrink(image) for image in images]
        batch = self.processor.image_processor([image.picture for image in images], return_tensors="pt")
        return self._encode_cut(batch["pixel_values"], [image.shape for image in images], begin)

    @torch.inference_mode()
    def _encode_prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> VisionFeatures:
        sizes = [(int(height), int(width)) for height, width in inputs["image_sizes"]]
        return self._encode_cut(inputs["pixel_values"], sizes, time.perf_counter())

    def _encode_cut(
        self, batch: Sequence[torch.Tensor], image_sizes: Sequence[tuple[int, int]], begin: float
    ) -> VisionFeatures:
        """The features of pictures of these (height, width), from each one's tiles, filled up with empty ones.

        Preprocessing began at ``begin`` and is over now.
        """
        pixels: list[torch.Tensor] = []
        tile_images: list[int] = []
        positions: list[tuple[int, int] | None] = []
        for i, (size, tiles) in enumerate(zip(image_sizes, batch, strict=True)):
            count, wide = self._tiles(size)
            pixels += tiles[:count]
            tile_images += [i] * count
            positions += [None, *(divmod(tile, wide) for tile in range(count - 1))]
        features = self._encode_tiles(pixels, tile_images, image_sizes, begin, positions)
        seen = zip(features.tiles, features.pixels, strict=True)
        counts = [tile_images.count(image) for image in range(len(image_sizes))]
        pairs = zip(features.image_sizes, counts, strict=True)
        packed = [
            tile for size, count in pairs for tile in self._packed_tiles([next(seen) for _ in range(count)], size)
        ]
        tiles, pixels_left = zip(*packed, strict=True)
        return replace(features, tiles=tiles, pixels=pixels_left, cut=True)

    def _tiles(self, size: tuple[int, int]) -> tuple[int, int]:
        """The number of tiles of a picture (height, width), the overview among them; and of tiles side by side."""
        pinpoints, side = self.model.config.image_grid_pinpoints, self.model.config.vision_config.image_size
        count = image_size_to_num_patches(list(size), pinpoints, side)
        return count, get_anyres_image_grid_shape(list(size), pinpoints, side)[1]

    def _packed_tiles(self, seen: Sequence[SeenTile], size: tuple[int, int]) -> list[SeenTile]:
        """The tiles of an image (height, width) with their visual tokens alone; tiles of nothing but padding go."""
        slots = self._slots(size, len(seen))
        patches = slots[slots != NEWLINE].sort().values
        tile, patch = patches // self._side**2, patches % self._side**2
        return [only_patches(*seen[t], patch[tile == t]) for t in tile.unique().tolist()]

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `Family.picture_tokens`."""
        return int((self._slots(size, self._tiles(size)[0]) != NEWLINE).sum())

    def newlines(self, images: Sequence[Image]) -> int:
        """See `Family.newlines`."""
        sizes = [image.shape for image in images]
        return sum(int((self._slots(size, self._tiles(size)[0]) == NEWLINE).sum()) for size in sizes)

    @torch.inference_mode()
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """See `Family.project`. Kept tokens go where the model's packing puts them, whatever order they come in.

        The newline of a row stays as long as a token of its row does. The number of newlines thus depends on the
        scores, so the host waits for them.
        """
        first_tokens = torch.tensor([0, *accumulate(features.counts)])  # of each tile, counted over all tiles
        pairs = zip(first_tokens.tolist(), self.kept_indices(features, selection), strict=False)
        kept_tokens = torch.cat([first + index for first, index in pairs]).cpu()  # the one wait
        kept = torch.zeros(sum(features.counts), dtype=torch.bool).index_fill(0, kept_tokens, True)
        embeddings, origin, newlines, encoded, placeholders, left = [], [], [], [], [], []
        for image, size in enumerate(features.image_sizes):
            tiles = [t for t, tile in enumerate(features.tiles) if tile.image == image]
            first, count = first_tokens[tiles[0]], sum(features.counts[t] for t in tiles)
            places = self._token_slots(size) if features.cut else torch.tensor([*range(count), NEWLINE])
            placeholders.append(len(places))
            overview = features.counts[tiles[0]] if features.cut else 0
            left.append(_surviving(places, kept[first : first + count], overview).nonzero()[:, 0])
            places = places[left[-1]]
            real = places != NEWLINE
            embeddings.append(self._embed_slots([features.tiles[t] for t in tiles], places))
            tile = torch.bucketize(first + places, first_tokens[1:], right=True)
            origins = torch.stack([tile, first + places - first_tokens[tile.clamp(max=len(features.tiles) - 1)]], 1)
            origin.append(origins.masked_fill(~real[:, None], -1))
            newlines.append((~real).nonzero()[:, 0])
            encoded.append(count)
        return VisualTokens(
            tuple(embeddings),
            tuple(origin),
            tuple(encoded),
            tuple(left),
            newlines=tuple(newlines),
            placeholders=tuple(placeholders),
        )

    def _embed_slots(self, tiles: Sequence[Tile], places: torch.Tensor) -> torch.Tensor:
        """The embeddings (K, E) of some slots of an image with ``tiles``.

        ``places`` (K,) are numbers of tokens, counted over all tiles of the image, or `NEWLINE`.
        """
        real = places != NEWLINE
        features = torch.cat([tile.features for tile in tiles])
        whole = replace(tiles[0], features=features)
        tokens = self._embed_tokens([whole], [copy_to(places[real], features.device)]).to(self.device)
        newlines = self._newline().to(tokens.dtype).repeat(len(places), 1)
        return newlines.index_copy(0, copy_to(real.nonzero()[:, 0], newlines.device), tokens)

    def _newline(self) -> torch.Tensor:
        """The embedding (E,) at the end of a row."""
        with align_module_device(self.model.model):  # an offloaded parameter is there only during a call
            newline: torch.Tensor = self.model.model.image_newline.to(self.device)
        return newline

    def _token_slots(self, size: tuple[int, int]) -> torch.Tensor:
        """The token of every slot of an image (height, width), counted over all its tiles, or `NEWLINE`; (slots,)."""
        slots = self._slots(size, self._tiles(size)[0])
        real = slots != NEWLINE
        # Tokens are counted in the order of their patches, so a token's number is its patch's rank.
        return slots.masked_scatter(real, slots[real].argsort().argsort())

    def _slots(self, size: tuple[int, int], tiles: int) -> torch.Tensor:
        """The patch of every slot of an image (height, width) cut into ``tiles``, or `NEWLINE`; (slots,) int64.

        Patches are counted over all tiles, those of padding too. The stock packing gives them, run on their numbers.
        """
        numbers = torch.arange(tiles * self._side**2).view(tiles, -1, 1)
        packed, _ = self.model.model.pack_image_features(
            [numbers],
            [list(size)],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=torch.full((1,), NEWLINE),
        )
        slots: torch.Tensor = packed[0].squeeze(-1)
        return slots


def _surviving(places: torch.Tensor, kept: torch.Tensor, overview: int) -> torch.Tensor:
    """Which slots of an image are left, (slots,) bool: those of kept tokens, and newlines whose row has a kept token.

    Args:
        places: (slots,) the token of each slot, counted over all tiles of the image, or `NEWLINE`.
        kept: (tokens of the image,) bool.
        overview: tokens of the overview tile, which comes first and has no newlines; 0 if there is none.
    """
    newline = places == NEWLINE
    alive = ~newline & kept[places.clamp(min=0)]
    before = torch.cat([torch.zeros(1, dtype=torch.int64), alive.cumsum(0)])  # kept tokens before each slot
    row_ends = newline.nonzero()[:, 0]
    row_begins = torch.cat([torch.tensor([overview]), row_ends[:-1] + 1])
    alive[row_ends] = before[row_ends] > before[row_begins]
    return alive
