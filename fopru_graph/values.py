"""The values that travel on a pipeline's edges: small frozen data classes that import no torch.

Shapes: N visual tokens of one tile on a grid (h, w); K of them kept; D encoder width, E language-model width. A
*tile* is one picture as the vision encoder sees it; LLaVA-1.5 has one tile an image, other families have several. All
pruning before the projector works tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import PIL.Image
    import torch

    from fopru_graph.lvlm.families.family import Family


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded RGB picture, where it came from, and the share of its pixels that it is to be encoded with."""

    picture: PIL.Image.Image
    source: str
    resolution: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.picture.height, self.picture.width


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of a video, evenly spaced in time, and where they came from."""

    frames: tuple[PIL.Image.Image, ...]
    source: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height, width), the latter in pixels."""
        return len(self.frames), self.frames[0].height, self.frames[0].width


@dataclass(frozen=True)
class ModelSizes:
    """Sizes that the arithmetic of a run follows from. Weights are counted where they multiply every token.

    ``tower_weights`` of the layers that are run, ``tower_layers`` of them, ``whole_tower`` both for all layers;
    ``tower_width`` elements take part in attention. ``patch_weights`` embed a patch, ``prefix`` tokens come before a
    tile's, a visual token is made of ``patches`` patches and of ``projector_weights``. ``layer_weights`` of a decoder
    layer, ``width`` and ``inner`` its widths, ``query_width`` heads × head size; ``head_weights`` of the output head.
    ``step_bytes`` of weights are read for each new token.
    """

    tower_weights: int
    tower_layers: int
    whole_tower: tuple[int, int]
    tower_width: int
    patch_weights: int
    prefix: int
    patches: int
    projector_weights: int
    layers: int
    layer_weights: int
    width: int
    inner: int
    query_width: int
    head_weights: int
    step_bytes: int


@dataclass(frozen=True, eq=False)
class ModelHandle:
    """A loaded model behind its family's small interface (`fopru_graph.lvlm.families.family`)."""

    name: str
    family: Family

    @property
    def device(self) -> str:
        """Device of the language model's embeddings, e.g. ``cpu`` or ``cuda:0``."""
        return str(self.family.device)

    @property
    def dtype(self) -> str:
        """Weight type without the ``torch.`` prefix, e.g. ``float32``."""
        return str(self.family.dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class TileAttention:
    """What is needed to reduce one tile's attention map at the layer that the projector reads, without storing the map.

    ``query`` and ``key`` are (H, P + M, d), after any rotary embedding; the map is softmax(scale · q kᵀ) over all P + M
    tokens, of which the first P (CLS, registers) are no patches. ``patch_groups`` (N, m) int64 holds the patches that
    the model merges into each visual token; None where every patch is a token, M = N. ``weights`` (N, m) float32 are
    the shares of a token's patches and sum to one; None for equal shares.
    """

    query: torch.Tensor
    key: torch.Tensor
    scale: float
    prefix: int
    patch_groups: torch.Tensor | None = None
    weights: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Tile:
    """One tile: its visual tokens (N, D), their grid (h, w) with h·w = N, and the attention that scores them.

    ``features`` are those of the layer that the projector reads, or what the projector made of them, where it merges
    patches. ``deepstack`` holds further (N, E) features that the model adds inside its language model (DeepStack).
    ``tile_position`` is the tile's (row, column) where the picture was cut into a grid of tiles; None for an overview,
    a picture that is one tile, and a frame. ``prefix_features`` holds the (P, D) features of the tokens before the
    patches (CLS) where the next encoder layer could go on from all of them; else None.
    """

    features: torch.Tensor
    grid: tuple[int, int]
    image: int
    attention: TileAttention
    deepstack: tuple[torch.Tensor, ...] = ()
    tile_position: tuple[int, int] | None = None
    prefix_features: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class VisionFeatures:
    """Encoded tiles in prompt order and the pixels they were made from.

    ``pixels`` holds one (3, H, W) float tensor a tile on the CPU, normalised by ``mean`` and ``std`` of each channel;
    ``image_sizes`` each image's (height, width) before preprocessing, which took ``preprocess_ms``; None in features
    that were made from others (`with_tiles`). ``markup`` is the text that stands for each image in a prompt, with one
    placeholder a visual token; none where that is all it is. ``video`` says that the images are videos.
    """

    tiles: tuple[Tile, ...]
    pixels: tuple[torch.Tensor, ...] = field(repr=False)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    image_sizes: tuple[tuple[int, int], ...] = ()
    preprocess_ms: float | None = 0.0
    markup: tuple[str, ...] = ()
    video: bool = False

    def with_tiles(self, tiles: tuple[Tile, ...]) -> VisionFeatures:
        """The same encoding with other features or another attention in its tiles; its figures were told already."""
        return replace(self, tiles=tiles, preprocess_ms=None)

    @property
    def counts(self) -> tuple[int, ...]:
        """Visual tokens N of every tile."""
        return tuple(tile.features.shape[0] for tile in self.tiles)

    def seen(self, tile: int) -> torch.Tensor:
        """One tile as the encoder saw it: (H, W, 3) uint8."""
        pixels = self.pixels[tile]
        std, mean = (pixels.new_tensor(one)[:, None, None] for one in (self.std, self.mean))
        return ((pixels * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0)

    def report(self) -> dict[str, Any]:
        """The figures of this encoding for the run record; none of features that were made from others."""
        if self.preprocess_ms is None:
            return {}
        return {"preprocess_ms": self.preprocess_ms, "tile_tokens": list(self.counts)}


@dataclass(frozen=True, eq=False)
class Significance:
    """One score per visual token, larger is more significant.

    ``scores`` holds one (N,) float32 tensor a tile, ``grids`` its (h, w), ``direction`` the name of the scorer or, of
    FoPru's two means, a () bool tensor on the scores' device: True where the attention received was taken.
    ``images`` holds each tile's image and ``tile_positions`` its position in the picture, as in `Tile`; a scorer that
    leaves them out can only be pruned tile by tile.
    """

    scores: tuple[torch.Tensor, ...]
    grids: tuple[tuple[int, int], ...]
    direction: tuple[str | torch.Tensor, ...]
    images: tuple[int, ...] = ()
    tile_positions: tuple[tuple[int, int] | None, ...] = ()

    @classmethod
    def of(
        cls, features: VisionFeatures, scores: Sequence[torch.Tensor], side: str | Sequence[torch.Tensor]
    ) -> Significance:
        """Scores of all tiles of ``features``; ``side`` names the scorer, or tells of each tile what was taken."""
        tiles = features.tiles
        sides = (side,) * len(tiles) if isinstance(side, str) else tuple(side)
        grids, images, positions = zip(*((tile.grid, tile.image, tile.tile_position) for tile in tiles), strict=True)
        return cls(tuple(scores), grids, sides, images, positions)

    @property
    def direction_names(self) -> tuple[str, ...]:
        """For each tile the mean that was taken: ``received`` (column mean, s₂ of Eq. 3), ``given`` (row mean, s₁), or
        another scorer's name. Reading it waits for the device, which is why it is read after a run and not in it.
        """
        return tuple(side if isinstance(side, str) else "received" if side else "given" for side in self.direction)


@dataclass(frozen=True, eq=False)
class Selection:
    """Indices of the kept visual tokens, one (K,) int64 tensor a tile, and the N each was chosen from."""

    indices: tuple[torch.Tensor, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """Projected visual tokens, one (K, E) tensor an image, ready to stand for the image's placeholders.

    ``origin`` holds one (K, 2) int64 tensor an image: tile and index within the tile of every row, (−1, −1) for rows
    that stand for no patch, such as the end of a line. ``encoded`` is each image's number of rows before any was
    dropped, and ``keep_positions`` (K,) int64 which of them are left, where that matters. ``deepstack`` holds an
    image's further (K, E) features, one a DeepStack layer; ``grids`` its (frames, h, w); ``markup`` and ``video`` as
    in `VisionFeatures`.
    """

    embeddings: tuple[torch.Tensor, ...]
    origin: tuple[torch.Tensor, ...]
    encoded: tuple[int, ...]
    keep_positions: tuple[torch.Tensor, ...] = ()
    deepstack: tuple[tuple[torch.Tensor, ...], ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    markup: tuple[str, ...] = ()
    video: bool = False


@dataclass(frozen=True)
class InLLMPruner:
    """A description of pruning inside the language model: from layer ``layer`` on only the best visual tokens remain.

    ``score`` gets query (B, H, L, d), key (B, G, L, d), scale and mask of layer ``layer − 1`` and returns (B, L)
    scores, e.g. `fopru_graph.pruning.in_llm.last_token_attention`. Exactly one of ``ratio`` (share kept of the
    visual tokens that arrive at the layer, in (0, 1]) and ``tokens`` (number kept) is set; both count sample by
    sample.
    """

    score: Callable[..., torch.Tensor]
    layer: int
    ratio: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, eq=False)
class Generation:
    """Generated answers of B prompts and everything measured on the way, read from tensors.

    Token counts and KV bytes are sums over the batch: ``encoded`` leave the vision tower, ``projected`` enter the
    language model, ``visual_per_layer`` pass through each layer. ``kv_lengths`` is the cache length of each layer
    at the end. ``token_ids`` end with the stop token where one was generated. ``kept`` holds, an image, the (K,
    2) rows of tile and index that the last layer still saw. ``prefill_ms`` is the time until the first token's ids
    were known; ``reused`` tokens of the prompt were not run again, because the last question began with them.
    ``preprocess_ms`` is not 0 where pictures were prepared on the way.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    encoded: int
    projected: int
    visual_per_layer: tuple[int, ...]
    kv_lengths: tuple[int, ...]
    kv_bytes: int
    prefill_ms: float
    step_ms: tuple[float, ...]
    device: str
    dtype: str
    kept: tuple[torch.Tensor, ...]
    reused: int = 0
    preprocess_ms: float = 0.0

    def report(self) -> dict[str, Any]:
        """The figures of this generation for the run record; plain JSON values."""
        layers = self.visual_per_layer
        prepared = {"preprocess_ms": self.preprocess_ms} if self.preprocess_ms else {}
        return prepared | {
            "visual_tokens": {
                "encoded": self.encoded,
                "kept": self.projected,
                "final": layers[-1],
                "layer_average": round(sum(layers) / len(layers), 2),
            },
            "prefill_ms": self.prefill_ms,
            "step_ms": [round(ms, 3) for ms in self.step_ms],
            "samples": len(self.prompts),
            "tpot_ms": sum(self.step_ms) / len(self.step_ms) if self.step_ms else None,
            "new_tokens": sum(len(ids) for ids in self.token_ids),
            "visual_per_layer": list(layers),
            "reused_tokens": self.reused,
            "kv_lengths": list(self.kv_lengths),
            "kv_bytes": self.kv_bytes,
            "device": self.device,
            "dtype": self.dtype,
        }
