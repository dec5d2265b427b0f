"""The interface between pipelines and a family of models. A further family is one file in `families/`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.loading.device import home_of
from fopru_graph.values import Image, ModelSizes, Selection, TileAttention, Video, VisionFeatures, VisualTokens


class Family(ABC):
    """One loaded model with its processor; the vision side is each family's own, the language side is shared.

    Attributes:
        model_types: values of ``config.model_type`` that the family serves.
        auto_class: name of the stock transformers class that loads it.
        model: the stock model; typed loosely, as transformers has no types for a model's parts that hold everywhere.
        processor: the stock processor.
        lock: held by every run on the model, because taps and hooks sit on its modules for the time of a forward.
        steps: decoding steps of fixed shape, kept for prompts of the same shape (`static`).
        uncapturable: a step could not be captured as a CUDA graph; it is not tried again.
        last_prompt: its keys and values, kept for the next question about the same image (`prefix`).
    """

    model_types: ClassVar[tuple[str, ...]]
    auto_class: ClassVar[str]

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.lock = threading.RLock()
        self.uncapturable = False
        self.forget()

    def forget(self) -> None:
        """Free what is kept between runs to make the next one faster."""
        self.steps: OrderedDict[Any, Any] = OrderedDict()
        self.last_prompt: Any = None

    # -- vision side: each family's own --------------------------------------------------------------------------

    @abstractmethod
    def encode(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """Run the vision tower over all tiles of ``images`` and note the attention of the layer that is read.

        Raises:
            UserError: there is no image, or the checkpoint names a layer that the tower does not have.
        """

    def encode_together(self, images: Sequence[Image | Video]) -> VisionFeatures:
        """As `encode`, for images of one prompt; another thing only where the model treats several otherwise than one.

        Raises:
            UserError: as for `encode`.
        """
        return self.encode(images)

    @abstractmethod
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """The selected visual tokens (all, if None) in the language model's space.

        Raises:
            UserError: the selection was made for other tiles.
        """

    def attention_above(self, features: VisionFeatures) -> tuple[TileAttention, ...]:
        """Each tile's attention in the encoder layer above the one that is read, whose input its features are.

        Raises:
            UserError: the family cannot tell, or the layer that is read is the last.
        """
        raise UserError(
            f"{self.model_types[0]} cannot tell the attention of the encoder layer above the one that is read",
            "leave AttentionAbove out: wire its readers to VisionEncode",
        )

    def chosen(self, features: VisionFeatures, selection: Selection | None) -> list[torch.Tensor]:
        """The kept indices (K,) of every tile, on its features' device."""
        if selection is None:
            return [torch.arange(len(tile.features), device=tile.features.device) for tile in features.tiles]
        if selection.counts != features.counts:
            raise UserError(
                f"the selection was made from {selection.counts} tokens, the features have {features.counts}",
                "wire Project and the pruning nodes to the same VisionEncode",
            )
        pairs = zip(features.tiles, selection.indices, strict=True)
        return [index.to(tile.features.device) for tile, index in pairs]

    def model_sizes(self) -> ModelSizes:
        """The model's sizes, from which the arithmetic of a run follows; counted from its weights."""
        layers, config = list(self.tower_layers), self.language_model.config
        run = self.run_layers
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        embedding = matrices(self.tower) - matrices(*layers)
        return ModelSizes(
            tower_weights=matrices(*layers[:run]),
            tower_layers=run,
            whole_tower=(matrices(*layers), len(layers)),
            tower_width=self.tower_width,
            patch_weights=embedding,
            prefix=self.prefix,
            patches=self.patches,
            projector_weights=matrices(self.projector),
            layers=len(self.layers),
            layer_weights=matrices(*self.layers) // len(self.layers),
            width=config.hidden_size,
            inner=config.intermediate_size,
            query_width=config.num_attention_heads * head,
            head_weights=matrices(self.model.lm_head),
            step_bytes=stored(self.layers, self.language_model.norm, self.model.lm_head),
        )

    prefix: int = 0  # tokens (CLS, registers) that come before a tile's patches
    patches: int = 1  # that are merged into one visual token
    attention_name: str = "self_attn"  # of the attention module in a layer of the tower

    @property
    def tower(self) -> Any:
        """The stock vision tower."""
        return self.model.model.vision_tower

    @property
    def tower_layers(self) -> Any:
        """Its layers, in order."""
        return self.tower.encoder.layers

    @property
    def run_layers(self) -> int:
        """How many of them are run."""
        return len(self.tower_layers)

    @property
    def scored_layer(self) -> int:
        """The layer whose attention scores the tokens: the last one, unless the projector reads another's output."""
        return len(self.tower_layers) - 1

    @property
    def tapped(self) -> Any:
        """The attention module of the layer that scores."""
        return self.attention_module(self.scored_layer)

    def attention_module(self, layer: int) -> Any:
        """The attention module of a layer of the tower."""
        return getattr(self.tower_layers[layer], self.attention_name)

    @property
    def tower_width(self) -> int:
        """Elements of a token that take part in its attention."""
        return int(self.tower.config.hidden_size)

    @property
    def projector(self) -> Any:
        """The module between tower and language model."""
        return self.model.model.multi_modal_projector

    # -- prompts -------------------------------------------------------------------------------------------------

    first_position: int = 0  # of a prompt's first token, where positions are numbered anew
    line_end_id: int | None = None  # a token of the markup that goes when no visual token of its line is left
    video_placeholder: str | None = None  # what the chat template writes for a video; None to call it an image there

    @property
    def placeholder(self) -> str:
        """The text that stands for an image in the chat template's output."""
        return str(self.processor.tokenizer.decode([self.image_token_id]))

    def template(self, prompt: str, images: int) -> str | None:
        """The prompt in the family's own form, for those without a chat template; None for LLaVA's plain one."""
        return None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a whole prompt, the first token included."""
        tokenizer = self.processor.tokenizer
        begins = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)  # some templates write it
        ids: list[int] = tokenizer(text, add_special_tokens=not begins).input_ids
        return ids

    def positions(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]]) -> torch.Tensor | None:
        """Positions (P, L) of a whole, unpruned prompt, kept by the tokens that are left; None to number these anew.

        ``grids`` are the (frames, h, w) of its images.
        """
        return None

    # -- language side -------------------------------------------------------------------------------------------

    @property
    def decoder(self) -> Any:
        """The stock module that takes embedded prompts: the decoder stack, or what makes its masks around it."""
        return self.language_model

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """What the decoder wants for a `prompt.Prompt` besides embeddings, mask, positions and cache."""
        return {}

    @property
    def first_cut(self) -> int:
        """The lowest layer from which on visual tokens may be dropped inside the language model."""
        return 1

    @property
    def language_model(self) -> Any:
        """The stock decoder stack (without the output head)."""
        return self.model.model.language_model

    @property
    def layers(self) -> Any:
        """The decoder layers, in order."""
        return self.language_model.layers

    @property
    def image_token_id(self) -> int:
        """The placeholder that stands for one visual token in the prompt."""
        return int(self.model.config.image_token_id)

    @property
    def device(self) -> torch.device:
        """Where prompts enter the language model."""
        return home_of(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the language model's weights."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        ids: Any = self.model.generation_config.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset(ids if isinstance(ids, list) else [ids])

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, Q, E) of token ids (B, Q)."""
        embeds: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits (B, V) of the last hidden states (B, E)."""
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits


def read_layer(named: Any, depth: int) -> int:
    """The encoder layer whose output ``vision_feature_layer`` names: ``hidden_states[i]`` is that of layer ``i − 1``.

    Raises:
        UserError: it names no layer of ``depth``, or several where the model reads one.
    """
    index = depth if not isinstance(named, int) else named - 1 if named >= 0 else depth + named
    if not 0 <= index < depth:
        raise UserError(
            f"vision_feature_layer {named} does not name the output of one of {depth} encoder layers",
            "use −depth … −1 or 1 … depth in the checkpoint's config.json",
        )
    return index


def matrices(*modules: Any) -> int:
    """Weights of all matrices and convolutions in the modules: those that multiply every token."""
    linear = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)
    return sum(part.weight.numel() for module in modules for part in module.modules() if isinstance(part, linear))


def stored(*modules: Any) -> int:
    """Bytes of all weights of the modules."""
    return sum(weight.numel() * weight.element_size() for module in modules for weight in module.parameters())
