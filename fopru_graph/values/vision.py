"""What the vision encoder gives: tiles, their visual tokens, and the attention that scores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fopru_graph.describing import Described
from fopru_graph.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class TileAttention(Described):
    """Queries and keys of one tile at the encoder layer whose output the projector reads: its attention map, unformed.

    ``query`` and ``key`` are (H, P + M, d), after any rotary embedding; the map is softmax(scale · q kᵀ) over all P + M
    tokens. The first P = ``prefix`` (CLS, registers, patches of padding) are no visual tokens. ``patch_groups`` (N, m)
    int64 holds the patches that the model merges into each visual token; None if every patch is a visual token, so that
    M = N. ``weights`` (N, m) float32 are the shares of a token's patches and sum to 1; None for equal shares.
    ``has_cls``: the first of the P tokens is the tower's CLS. ``layer`` is the encoder layer, from 0; ``others`` are
    the same tile's in further layers, if they were asked for, and ``named`` pairs each number or share of the depth
    that was asked for with the layer that it means.
    """

    query: torch.Tensor
    key: torch.Tensor
    scale: float
    prefix: int
    patch_groups: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    has_cls: bool = False
    layer: int = -1
    others: tuple[TileAttention, ...] = ()
    named: tuple[tuple[int | float, int], ...] = ()

    def at(self, layer: int | float | None) -> TileAttention:
        """The tile's attention in an encoder layer, named as VisionEncode was asked for it; None: this one.

        Raises:
            UserError: it was not recorded.
        """
        if layer is None:
            return self
        recorded = {each.layer: each for each in (self, *self.others)}
        number = dict(self.named).get(layer, layer)
        if number not in recorded:
            raise UserError(
                f"the attention of encoder layer {layer} was not recorded, only that of {sorted(recorded)}",
                f"give VisionEncode layers: [{layer}]",
            )
        return recorded[int(number)]

    def changed(self, change: Callable[[TileAttention], TileAttention]) -> TileAttention:
        """The same change in every layer that was recorded."""
        return replace(change(self), others=tuple(map(change, self.others)))


@dataclass(frozen=True, eq=False, repr=False)
class Tile(Described):
    """One tile: its visual tokens, their grid (h, w) with h·w = N, its image's index, and the attention that scores it.

    ``features`` (N, D) come from the encoder layer that the projector reads; if the projector merges patches, they are
    already projected, (N, E). ``deepstack`` holds the (N, E) features that the model adds to its first decoder layers
    (DeepStack). ``tile_position`` is the tile's (row, column) in the grid of tiles that the picture was cut into; None
    for an overview, an uncut picture and a video frame. ``prefix_features`` are the (P, D) features of the tokens
    before the patches (CLS); None if the next encoder layer could not continue from these features, because they are
    projected.

    Patches that the model deletes after encoding, as those of padding, are no visual tokens: no budget counts them.
    They stand among the P tokens before the patches, CLS first.
    """

    features: torch.Tensor
    grid: tuple[int, int]
    image: int
    attention: TileAttention
    deepstack: tuple[torch.Tensor, ...] = ()
    tile_position: tuple[int, int] | None = None
    prefix_features: torch.Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class VisionFeatures(Described):
    """Encoded tiles in prompt order and the pixels they were made from.

    ``pixels`` holds one (3, H, W) float tensor per tile on the CPU, normalised by ``mean`` and ``std`` of each channel:
    the area of its visual tokens. ``tower_tokens`` counts what the tower saw of every tile, CLS and padding too.
    ``image_sizes`` are the images' (height, width) before preprocessing, and ``preprocess_ms`` the time it took; None
    in features derived from others (`with_tiles`). ``markup`` is the text that stands for each image in a prompt, with
    one placeholder per visual token; empty if it is these placeholders alone. ``video``: the images are videos.
    ``cut``: each image is an overview and the tiles that it was cut into. ``frame_rates`` are the videos' frames a
    second, see `Video.frame_rate`; empty for pictures, and for families that do not use them.
    ``resolution`` is the share of their pixels that the pictures were encoded with, see `Image`; the smallest of all.
    """

    tiles: tuple[Tile, ...]
    pixels: tuple[torch.Tensor, ...] = field(repr=False)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    image_sizes: tuple[tuple[int, int], ...] = ()
    preprocess_ms: float | None = 0.0
    markup: tuple[str, ...] = ()
    video: bool = False
    tower_tokens: tuple[int, ...] = ()
    cut: bool = False
    frame_rates: tuple[float, ...] = ()
    resolution: float = 1.0

    def with_tiles(self, tiles: tuple[Tile, ...]) -> VisionFeatures:
        """The same encoding with other tiles. It reports no figures: the original encoding reports them."""
        return replace(self, tiles=tiles, preprocess_ms=None)

    def repeated(self, images: Sequence[int]) -> VisionFeatures:
        """The features of ``images``, numbers of images here, some of them several times; `tower_tokens` stay."""
        pairs = list(zip(self.tiles, self.pixels, strict=True))
        tiles, pixels = zip(
            *(
                (replace(tile, image=new), seen)
                for new, image in enumerate(images)
                for tile, seen in pairs
                if tile.image == image
            ),
            strict=True,
        )

        def of_each(given: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(given[image] for image in images) if given else ()

        return replace(
            self,
            tiles=tiles,
            pixels=pixels,
            image_sizes=of_each(self.image_sizes),
            markup=of_each(self.markup),
            frame_rates=of_each(self.frame_rates),
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """Visual tokens N of every tile."""
        return tuple(tile.features.shape[0] for tile in self.tiles)

    def seen(self, tile: int) -> torch.Tensor:
        """One tile as the encoder saw it, without padding: (H, W, 3) uint8."""
        pixels = self.pixels[tile]
        std, mean = (pixels.new_tensor(channels)[:, None, None] for channels in (self.std, self.mean))
        return ((pixels * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0)

    def report(self) -> dict[str, Any]:
        """The figures of this encoding for the run record; empty for features derived from others."""
        if self.preprocess_ms is None:
            return {}
        return {
            "preprocess_ms": self.preprocess_ms,
            "tile_tokens": list(self.counts),
            "tower_tokens": list(self.tower_tokens),
            "projected": any(tile.prefix_features is None for tile in self.tiles),
        }
