"""The interface between pipelines and a family of models. Adding a family means adding one file beside this one."""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.capture_qk import Attention, capture_qk
from fopru_graph.lvlm.families.language_side import LanguageSide
from fopru_graph.lvlm.families.modules import count_bytes, count_weights
from fopru_graph.lvlm.progress import Progress, layers_counted
from fopru_graph.pruning.depth import layer_at
from fopru_graph.values import Image, ModelSizes, Selection, Tile, TileAttention, Video, VisionFeatures, VisualTokens


class Family(LanguageSide):
    """A loaded model with its processor. Each family has its own vision side; the language side is shared.

    Attributes:
        model_type: transformers' ``config.model_type``, set by `registry.register_family`.
        auto_class: name of the stock transformers class that loads the model.
        model: the stock model, untyped, as transformers types no part that all models have.
        processor: the stock processor.
        lock: held by every run on the model, because hooks sit on its modules during a forward.
        steps: decoding steps of fixed shape, reused by prompts of the same shape (`decoding.captured`).
        recorder: what the CUDA graphs of the steps share (`decoding.recorder`).
        uncapturable: capturing a step as a CUDA graph failed, so it is not tried again.
        taps: further encoder layers whose attention is recorded (`encode_layers`).
        progress: called as the layers of the vision tower run (`encode_layers`).
        last_prompt: keys and values of the last prompt, for prefix caching (`decoding.prefix_cache`).
    """

    model_type: ClassVar[str]
    auto_class: ClassVar[str]

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.lock = threading.RLock()
        self.uncapturable = False
        self.taps: tuple[int, ...] = ()
        self.progress: Progress | None = None
        self.forget()

    def forget(self) -> None:
        """Free what earlier runs left to make later ones faster."""
        self.steps: OrderedDict[Any, Any] = OrderedDict()
        self.recorder: Any = None
        self.last_prompt: Any = None

    # -- where the stock model keeps its parts -------------------------------------------------------------------

    tower_path: ClassVar[str] = "model.vision_tower"
    projector_path: ClassVar[str] = "model.multi_modal_projector"
    tower_layers_path: ClassVar[str] = "encoder.layers"  # inside the tower
    attention_name: ClassVar[str] = "self_attn"  # of the attention module inside a tower layer
    towers: ClassVar[Mapping[str, int]] = {}  # kinds of towers, and the tokens before their patches; empty: its own

    @property
    def tower(self) -> Any:
        """The stock vision tower."""
        return self.model.get_submodule(self.tower_path)

    @property
    def tower_layers(self) -> Any:
        """The layers of the vision tower, in order."""
        return self.tower.get_submodule(self.tower_layers_path)

    @property
    def projector(self) -> Any:
        """The module between vision tower and language model."""
        return self.model.get_submodule(self.projector_path)

    def attention_module(self, layer: int) -> Any:
        """The attention module of a layer of the vision tower."""
        return getattr(self.tower_layers[layer], self.attention_name)

    @contextlib.contextmanager
    def recorded_attention(self, part: int = 0, parts: int = 1) -> Iterator[dict[int, list[Attention]]]:
        """What the attention of the scored layer and of all `taps` gets inside the block, call by call, by layer.

        The tower runs once in it, for the ``part``-th, from 0, of ``parts`` groups of tiles.
        """
        calls: dict[int, list[Attention]] = {}
        layers = list(self.tower_layers)[: max([self.run_layers, *(layer + 1 for layer in self.taps)])]
        with layers_counted(layers, self.progress, part, parts), contextlib.ExitStack() as captures:
            for layer in dict.fromkeys((self.scored_layer, *self.taps)):
                calls[layer] = []
                captures.enter_context(capture_qk(self.attention_module(layer), calls[layer].append))
            yield calls

    # -- vision side: each family has its own --------------------------------------------------------------------

    @property
    def prefix(self) -> int:
        """Tokens (CLS) that the tower puts before a tile's patches."""
        return self.towers.get(self.tower.config.model_type, 0)

    @abstractmethod
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """Run the vision tower over all tiles of ``images`` and capture the attention of the scored layer.

        Raises:
            UserError: there is no image, or the checkpoint names a layer that the tower does not have.
        """

    def encode_together(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """Encode images of one prompt. Override only if the model encodes several pictures of one prompt differently.

        Raises:
            UserError: as for `encode`.
        """
        return self.encode(images)

    def encode_layers(
        self,
        images: Sequence[Image | Video],
        layers: Sequence[int | float],
        together: bool = False,
        progress: Progress | None = None,
    ) -> VisionFeatures:
        """Encode, and also record the attention of further encoder ``layers``.

        A layer is a number, from 0, or negative from the end; or a share of the depth in (0, 1), which names the
        nearest layer that sees whole pictures. ``together``: as `encode_together`. An image that is given several times
        is encoded once. ``progress`` is called with the number of encoder layers that have run and that of all, see
        `layers_counted`; an exception from it ends the encoding cleanly.

        Raises:
            UserError: the tower has no such layer, it sees pictures in windows, or as for `encode`.
        """
        once = list(dict.fromkeys(images))
        features = self._tapped(partial(self.encode_together if together else self.encode, once), layers, progress)
        return features if len(once) == len(images) else features.repeated([once.index(image) for image in images])

    def encode_prepared(
        self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]], layers: Sequence[int | float] = ()
    ) -> VisionFeatures:
        """Encode pictures that a stock processor prepared, else as `encode_layers`.

        Args:
            inputs: what the processor gave for the stock ``generate``, e.g. ``pixel_values``.
            ids: the token ids of the prompts in which the pictures stand, without padding, with a placeholder for each
                visual token.
            layers: as for `encode_layers`.

        Raises:
            UserError: as for `encode_layers`, or inputs are missing that the model needs.
        """
        try:
            return self._tapped(partial(self._encode_prepared, inputs, ids), layers)
        except KeyError as error:
            raise UserError(
                f"{error.args[0]} is missing among what the processor gave", "give all of it: **processor(…)"
            ) from error

    @abstractmethod
    def _encode_prepared(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> VisionFeatures:
        """See `encode_prepared`."""

    def _tapped(
        self, encode: Callable[[], VisionFeatures], layers: Sequence[int | float], progress: Progress | None = None
    ) -> VisionFeatures:
        """What ``encode`` gives, with the attention of further encoder ``layers``."""
        named = {layer: self._tap(layer) for layer in layers}
        with self.lock:
            self.taps, self.progress = tuple(dict.fromkeys(named.values())), progress
            try:
                features = encode()
            finally:
                self.taps, self.progress = (), None
        tiles = (
            replace(tile, attention=replace(tile.attention, named=tuple(named.items()))) for tile in features.tiles
        )
        return replace(features, tiles=tuple(tiles)) if named else features

    def _tap(self, layer: int | float) -> int:
        """The encoder layer that `encode_layers` was asked for."""
        depth = len(self.tower_layers)
        number = layer_at(layer, depth)
        if not -depth <= number < depth:
            raise UserError(
                f"there is no encoder layer {layer}",
                f"the vision tower has layers 0 … {depth - 1}, or −{depth} … −1",
            )
        if isinstance(layer, float):
            return min(self.whole_layers, key=lambda whole: abs(whole - number))
        return number % depth

    @property
    def whole_layers(self) -> Sequence[int]:
        """The layers of the vision tower whose attention sees a whole tile, not windows of it."""
        return range(len(self.tower_layers))

    @abstractmethod
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """The selected visual tokens (None for all) in the language model's space.

        Raises:
            UserError: the selection was made for other tiles.
        """

    def projected(self, features: VisionFeatures) -> VisionFeatures:
        """The same tiles with all visual tokens in the language model's space, (N, E); `project` takes them as well.

        Override where `encode` does not project already.
        """
        return features

    def attention_above(self, features: VisionFeatures) -> tuple[TileAttention, ...]:
        """Each tile's attention in the encoder layer above the one that is read, computed from the tile's features.

        Raises:
            UserError: the family cannot compute it, or the projector reads the last layer.
        """
        raise UserError(
            f"{self.model_type} cannot tell the attention of the encoder layer above the one that is read",
            "leave AttentionAbove out: wire its readers to VisionEncode",
        )

    @property
    def run_layers(self) -> int:
        """How many layers of the vision tower run."""
        return len(self.tower_layers)

    @property
    def scored_layer(self) -> int:
        """The tower layer whose attention scores visual tokens: the one whose output the projector reads."""
        return len(self.tower_layers) - 1

    @property
    def tower_width(self) -> int:
        """Elements of a token that take part in the tower's attention."""
        return int(self.tower.config.hidden_size)

    @property
    def patches(self) -> int:
        """Patches that are merged into one visual token."""
        return 1

    def kept_indices(self, features: VisionFeatures, selection: Selection | None) -> list[torch.Tensor]:
        """The kept indices (K,) of every tile, on the device of its features.

        Raises:
            UserError: the selection was made for other tiles.
        """
        if selection is None:
            return [torch.arange(len(tile.features), device=tile.features.device) for tile in features.tiles]
        if selection.counts != features.counts:
            raise UserError(
                f"the selection was made from {selection.counts} tokens, the features have {features.counts}",
                "wire Project and the pruning nodes to the same VisionEncode",
            )
        pairs = zip(features.tiles, selection.indices, strict=True)
        return [index.to(tile.features.device) for tile, index in pairs]

    def vision_features(
        self,
        tiles: Sequence[Tile],
        pixels: Sequence[torch.Tensor],
        image_sizes: Sequence[Sequence[int]],
        preprocess_ms: float,
        **more: Any,
    ) -> VisionFeatures:
        """Encoded ``tiles`` and their ``pixels`` (3, H, W), normalised as the processor says."""
        processor = self.processor.image_processor
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        sizes = tuple((size[0], size[1]) for size in image_sizes)
        seen = tuple(tile.attention.query.shape[1] for tile in tiles)
        return VisionFeatures(tuple(tiles), tuple(pixels), mean, std, sizes, preprocess_ms, tower_tokens=seen, **more)

    def picture_tokens(self, size: tuple[int, int]) -> int | None:
        """Visual tokens of a picture (height, width) without encoding it; None: every picture becomes as many."""
        return None

    def newlines(self, images: Sequence[Image]) -> int:
        """How many of the stock model's placeholders for ``images`` are newlines, which show no patch."""
        return 0

    def model_sizes(self) -> ModelSizes:
        """The sizes that FLOPs and bytes of a run follow from, counted from the model's weights."""
        tower_layers, config = list(self.tower_layers), self.language_model.config
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return ModelSizes(
            tower_weights=count_weights(*tower_layers[: self.run_layers]),
            tower_layers=self.run_layers,
            whole_tower=(count_weights(*tower_layers), len(tower_layers)),
            tower_width=self.tower_width,
            patch_weights=count_weights(self.tower) - count_weights(*tower_layers),
            prefix=self.prefix,
            patches=self.patches,
            projector_weights=count_weights(self.projector),
            layers=len(self.layers),
            layer_weights=count_weights(*self.layers) // len(self.layers),
            width=config.hidden_size,
            inner=config.intermediate_size,
            query_width=config.num_attention_heads * head_size,
            head_weights=count_weights(self.model.lm_head),
            step_bytes=count_bytes(self.layers, self.language_model.norm, self.model.lm_head),
        )
