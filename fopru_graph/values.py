"""The values that travel on a pipeline's edges: small frozen data classes that import no torch.

Shapes: a tile has N visual tokens on a grid (h, w), of which K are kept; D is the width of the vision encoder, E that
of the language model. A *tile* is one picture as the vision encoder sees it: LLaVA-1.5 makes one tile of an image,
other families cut it into several. All pruning before the projector works tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError

UNTIMED_FPS = 24.0  # what stock processors assume of frames that have no times

if TYPE_CHECKING:
    import PIL.Image
    import torch


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded RGB picture, the file it came from, and the share of its pixels to encode it with, in (0, 1]."""

    picture: PIL.Image.Image
    source: str
    resolution: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.picture.height, self.picture.width

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels; the engine's memory cache asks for them."""
        return 3 * self.picture.height * self.picture.width


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of a video and the file or folder they came from.

    ``times`` are each frame's seconds from the beginning, ``duration`` the seconds of the whole video, with frames that
    were not taken; both or none. Without them frames count as 24 a second, as in stock processors.

    Raises:
        UserError: there are no frames, or not a time for each.
    """

    frames: tuple[PIL.Image.Image, ...]
    source: str
    times: tuple[float, ...] = ()
    duration: float | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise UserError(f"the video '{self.source}' has no frames", "give at least one")
        if bool(self.times) != bool(self.duration) or len(self.times) not in (0, len(self.frames)):
            raise UserError(
                f"the video '{self.source}' has {len(self.frames)} frames, {len(self.times)} times and a duration of "
                f"{self.duration}",
                "give a time for every frame and the duration in seconds, or none of both",
            )

    @property
    def frame_times(self) -> tuple[float, ...]:
        """Each frame's seconds from the beginning."""
        return self.times or tuple(index / UNTIMED_FPS for index in range(len(self.frames)))

    @property
    def frame_rate(self) -> float:
        """Frames a second of the whole video, as stock processors count them: frames that were taken by duration."""
        return len(self.frames) / self.duration if self.duration else UNTIMED_FPS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height in pixels, width in pixels)."""
        return len(self.frames), self.frames[0].height, self.frames[0].width

    @property
    def nbytes(self) -> int:
        """Bytes of all frames' pixels; the engine's memory cache asks for them."""
        return sum(3 * frame.height * frame.width for frame in self.frames)


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that its FLOPs and bytes follow from. Weights are those that multiply every token.

    Vision tower: ``tower_layers`` run, with ``tower_weights`` weights together; ``whole_tower`` is (weights, layers)
    of all layers, run or not; ``tower_width`` elements of a token take part in attention; ``patch_weights`` embed a
    patch; ``prefix`` tokens (CLS) come before a tile's patches. Projector: ``patches`` patches become one visual token,
    through ``projector_weights`` weights. ``windowed_layers`` of the tower attend within windows of ``window`` tokens
    only. Language model: ``layers`` decoder layers of ``layer_weights`` weights each,
    hidden size ``width``, MLP size ``inner``, ``query_width`` = heads × head size, ``head_weights`` in the output head.
    Each new token reads ``step_bytes`` bytes of weights. ``causal``: a token of the prompt sees those before it only.
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
    windowed_layers: int = 0
    window: int = 0
    causal: bool = True


@dataclass(frozen=True, eq=False)
class ModelHandle:
    """A loaded model. ``family`` is a `fopru_graph.lvlm.families.family.Family`, untyped as values know no models."""

    name: str
    family: Any

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


@dataclass(frozen=True, eq=False)
class Tile:
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


@dataclass(frozen=True, eq=False)
class VisionFeatures:
    """Encoded tiles in prompt order and the pixels they were made from.

    ``pixels`` holds one (3, H, W) float tensor per tile on the CPU, normalised by ``mean`` and ``std`` of each channel:
    the area of its visual tokens. ``tower_tokens`` counts what the tower saw of every tile, CLS and padding too.
    ``image_sizes`` are the images' (height, width) before preprocessing, and ``preprocess_ms`` the time it took; None
    in features derived from others (`with_tiles`). ``markup`` is the text that stands for each image in a prompt, with
    one placeholder per visual token; empty if it is these placeholders alone. ``video``: the images are videos.
    ``cut``: each image is an overview and the tiles that it was cut into. ``frame_rates`` are the videos' frames a
    second, see `Video.frame_rate`; empty for pictures, and for families that do not use them.
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

    def with_tiles(self, tiles: tuple[Tile, ...]) -> VisionFeatures:
        """The same encoding with other tiles. It reports no figures: the original encoding reports them."""
        return replace(self, tiles=tiles, preprocess_ms=None)

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


@dataclass(frozen=True, eq=False)
class Significance:
    """One score per visual token, larger is more significant.

    For each tile, ``scores`` holds an (N,) float32 tensor and ``grids`` its (h, w). ``direction`` holds the scorer's
    name, or for FoPru a () bool tensor on the scores' device: True if the column mean (attention received) had the
    larger variance, False for the row mean. ``images`` and ``tile_positions`` are as in `Tile`; without them the scores
    can only be pruned tile by tile.
    """

    scores: tuple[torch.Tensor, ...]
    grids: tuple[tuple[int, int], ...]
    direction: tuple[str | torch.Tensor, ...]
    images: tuple[int, ...] = ()
    tile_positions: tuple[tuple[int, int] | None, ...] = ()

    @classmethod
    def of(
        cls, features: VisionFeatures, scores: Sequence[torch.Tensor], direction: str | Sequence[torch.Tensor]
    ) -> Significance:
        """Scores of all tiles of ``features``; ``direction`` is the scorer's name, or each tile's bool tensor."""
        tiles = features.tiles
        directions = (direction,) * len(tiles) if isinstance(direction, str) else tuple(direction)
        grids, images, positions = zip(*((tile.grid, tile.image, tile.tile_position) for tile in tiles), strict=True)
        return cls(tuple(scores), grids, directions, images, positions)

    @property
    def direction_names(self) -> tuple[str, ...]:
        """Per tile: ``received`` (column mean, s₂ of FoPru's Eq. 3), ``given`` (row mean, s₁), or the scorer's name.

        Reading it waits for the device, so it is read after a run, not during it.
        """
        return tuple(name if isinstance(name, str) else "received" if name else "given" for name in self.direction)


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """Questions as the language model embeds them: each one's token ids (T,) and embeddings (T, E), on its device.

    ``images`` says which question each image belongs to, in the images' order; empty if the only one is about all.
    """

    texts: tuple[str, ...]
    ids: tuple[torch.Tensor, ...]
    embeddings: tuple[torch.Tensor, ...]
    images: tuple[int, ...] = ()

    def of_image(self, image: int) -> torch.Tensor:
        """(T, E): the embeddings of the question about an image."""
        return self.embeddings[self.images[image] if self.images else 0]


@dataclass(frozen=True, eq=False)
class Selection:
    """Indices of the kept visual tokens, one (K,) int64 tensor per tile, and each tile's N before the selection.

    ``scores_finite`` is a () bool tensor on the scores' device: whether the scores that it was made by are finite; None
    if there were none. Reading it waits for the device, so that generating reads it together with the first token.
    """

    indices: tuple[torch.Tensor, ...]
    counts: tuple[int, ...]
    scores_finite: torch.Tensor | None = None


@dataclass(frozen=True)
class Budget:
    """How many visual tokens of each tile are kept."""

    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """Projected visual tokens, one (K, E) tensor per image, ready to replace the image's placeholders.

    For each image, ``origin`` is a (K, 2) int64 tensor with the tile of every token and its index in that tile,
    (−1, −1) for newlines, which show no patch: ``newlines`` are their indices, int64 on the CPU; no entries if there
    are none. ``encoded`` is the number of visual tokens before pruning, without newlines, and ``placeholders`` that of
    the stock prompt, with all newlines; no entries if it is the same. ``keep_positions`` (K,) int64 says which of them
    are left, for families whose prompt needs it. ``deepstack`` holds one (K, E) tensor per DeepStack layer; ``grids``
    is (frames, h, w); ``tile_counts`` are the kept tokens of each tile of an image, where ``keep_positions`` is set;
    ``markup``, ``video`` and ``frame_rates`` are as in `VisionFeatures`, ``scores_finite`` as in `Selection`.
    """

    embeddings: tuple[torch.Tensor, ...]
    origin: tuple[torch.Tensor, ...]
    encoded: tuple[int, ...]
    keep_positions: tuple[torch.Tensor, ...] = ()
    deepstack: tuple[tuple[torch.Tensor, ...], ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    markup: tuple[str, ...] = ()
    video: bool = False
    newlines: tuple[torch.Tensor, ...] = ()
    placeholders: tuple[int, ...] = ()
    scores_finite: torch.Tensor | None = None
    tile_counts: tuple[tuple[int, ...], ...] = ()
    frame_rates: tuple[float, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """Visual tokens of every image, without newlines."""
        newlines = map(len, self.newlines) if self.newlines else [0] * len(self.embeddings)
        return tuple(len(tokens) - ends for tokens, ends in zip(self.embeddings, newlines, strict=True))


@dataclass(eq=False)
class LayerView:
    """What a pruner sees that cuts at layer K of the language model: B samples of M tokens, as layer K − 1 had them.

    A token is text, visual, or none of both: padding, fillers, and what another pruner at this layer has dropped.

    Attributes:
        layer: K.
        query: (B, H, M, d), after rotary embedding.
        key, value: (B, G, M, d) with G key-value heads, H a multiple of G.
        scale: factor on the logits, usually 1 / √d.
        mask: what the attention of layer K − 1 got: None (nothing hidden), bool (B or 1, 1, M, M) with True = visible,
            the same as additive floats, or (B, M) with non-zero = visible.
        hidden: (B, M, E), what layer K gets.
        visual, text: (B, M) bool.
        places: (B, M) int64, every token's index in the whole prompt.
        visual_counts, text_counts: (B,) how many of each there are, which the host knows without waiting.
        budget: (B,) how many visual tokens the pruner is to keep; empty if it chooses their number itself.
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    mask: torch.Tensor | None
    hidden: torch.Tensor
    visual: torch.Tensor
    text: torch.Tensor
    places: torch.Tensor
    visual_counts: tuple[int, ...] = ()
    text_counts: tuple[int, ...] = ()
    budget: tuple[int, ...] = ()
    _states: Mapping[int, Callable[[], torch.Tensor]] = field(default_factory=dict)
    _image: Callable[[], torch.Tensor] | None = None
    _embeds: Callable[[], torch.Tensor] | None = None

    def hidden_after(self, layer: int) -> torch.Tensor:
        """(B, M, E): the hidden states of the same tokens after an earlier layer, as `InLLMPruner.reads` names it."""
        number = self.layer + layer if layer < 0 else layer
        if number not in self._states:
            raise KeyError(f"the hidden states after layer {layer} were not kept: name it in reads=({layer},)")
        return self._states[number]()

    @cached_property
    def image(self) -> torch.Tensor:
        """(B, M) int64: which of its sample's images each visual token shows, from 0; −1 for all others."""
        assert self._image is not None
        return self._image()

    @cached_property
    def embeds(self) -> torch.Tensor:
        """(B, M, E): the prompt's embeddings of the same tokens, as they entered the language model."""
        assert self._embeds is not None
        return self._embeds()


@dataclass(frozen=True)
class InLLMPruner:
    """A description of pruning inside the language model: from layer ``layer`` on only the best visual tokens remain.

    ``layer`` is a number from 0, or a share of the model's depth in (0, 1), see `pruning.depth.layer_at`; the nearest
    layer that can be cut is taken for a share.

    ``score`` gets a `LayerView` of B samples of M tokens, e.g. `pruning.in_llm.last_token_attention`,
    and returns (B, M): numbers of which the largest are kept, or bools that say themselves which visual tokens are kept
    (the host then waits for their number). For numbers exactly one of ``ratio`` (share kept of the visual tokens that
    reach the layer, in (0, 1]) and ``tokens`` (number kept) is set; both count within each sample.

    ``merge`` gets the view and the (B, K) int64 indices of the tokens that stay, and returns (B, K, M) weights: what
    stays goes on as the weighted sum of the layer's hidden states. Text goes on as it is whatever the weights say.
    ``reads`` names earlier layers whose hidden states the view is to have, see `LayerView.hidden_after`. Negative ones
    count from the cut K: −1 is layer K − 1, whose states layer K gets; −K − 1 is what layer 0 gets.
    """

    score: Callable[[LayerView], torch.Tensor]
    layer: int | float
    ratio: float | None = None
    tokens: int | None = None
    merge: Callable[[LayerView, torch.Tensor], torch.Tensor] | None = None
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Generation:
    """Generated answers of B prompts and the figures of the run, which are read from tensors.

    Token counts and KV bytes are sums over the batch: ``encoded`` visual tokens leave the vision tower, ``projected``
    enter the language model, ``visual_per_layer`` pass through each layer. ``kv_lengths`` is each layer's cache length
    at the end, ``kv_bytes`` what they take in the type they are held in. ``token_ids`` end with the stop token if one
    was generated. ``kept`` holds, for each image, the origin (K, 2) of the tokens that the last layer saw: tile and
    index. ``prefill_ms`` is the time until the first token was known; ``reused`` prompt tokens came from the cache of
    the previous question (prefix caching). ``preprocess_ms`` is not 0 if the generation itself preprocessed the
    pictures. ``loop`` drove the decoder, ``captured`` says whether as a CUDA graph, and ``once`` are the indices of the
    decoding steps that also did work that is done once. ``positions``
    says how kept tokens were numbered. ``logprobs`` are those of each answer's tokens as the model gave them, if they
    were asked for.
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
    loop: str = ""
    captured: bool = False
    once: frozenset[int] = frozenset({0})
    positions: str = ""
    logprobs: tuple[tuple[float, ...], ...] = ()

    @property
    def tpot_ms(self) -> float | None:
        """Mean time of the decoding steps that did no work that is done once; None without any."""
        settled = [ms for index, ms in enumerate(self.step_ms) if index not in self.once]
        return sum(settled) / len(settled) if settled else None

    @property
    def one_time_ms(self) -> float | None:
        """How much longer the other steps took, e.g. by capturing a CUDA graph; None without a `tpot_ms`."""
        tpot = self.tpot_ms
        if tpot is None:
            return None
        return max(0.0, sum(ms - tpot for index, ms in enumerate(self.step_ms) if index in self.once))

    def report(self) -> dict[str, Any]:
        """The figures of this generation for the run record; plain JSON values."""
        layers = self.visual_per_layer
        prepared = {"preprocess_ms": self.preprocess_ms} if self.preprocess_ms else {}
        return (
            prepared
            | {
                "visual_tokens": {
                    "encoded": self.encoded,
                    "kept": self.projected,
                    "final": layers[-1],
                    "layer_average": round(sum(layers) / len(layers), 2),
                },
                "prefill_ms": self.prefill_ms,
                "step_ms": [round(ms, 3) for ms in self.step_ms],
                "samples": len(self.prompts),
                "tpot_ms": self.tpot_ms,
                "one_time_ms": self.one_time_ms,
                "loop": self.loop,
                "captured": self.captured,
                "positions": self.positions,
                "new_tokens": sum(len(ids) for ids in self.token_ids),
                "visual_per_layer": list(layers),
                "reused_tokens": self.reused,
                "kv_lengths": list(self.kv_lengths),
                "kv_bytes": self.kv_bytes,
                "device": self.device,
                "dtype": self.dtype,
            }
            | ({"logprobs": [list(answer) for answer in self.logprobs]} if self.logprobs else {})
        )
