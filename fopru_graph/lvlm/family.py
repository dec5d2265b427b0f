"""The interface between pipelines and a family of models. A further family is one file in `families/`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fopru_graph.values import Anatomy, Image, Selection, VisionFeatures, VisualTokens


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
        prefix: keys and values of the last prompt, kept for the next question about the same image (`prefix`).
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
        self.prefix: Any = None

    # -- vision side: each family's own --------------------------------------------------------------------------

    @abstractmethod
    def encode(self, images: Sequence[Image]) -> VisionFeatures:
        """Run the vision tower over all tiles of ``images`` and note the attention of the layer that is read.

        Raises:
            UserError: there is no image, or the checkpoint names a layer that the tower does not have.
        """

    @abstractmethod
    def project(self, features: VisionFeatures, selection: Selection | None) -> VisualTokens:
        """Map the selected features (all, if None) into the language model's space; unselected ones are never
        projected.

        Raises:
            UserError: the selection was made for other tiles.
        """

    @abstractmethod
    def anatomy(self) -> Anatomy:
        """The model's sizes, from which the arithmetic of a run follows.

        Raises:
            UserError: the checkpoint names a layer that the tower does not have.
        """

    # -- language side -------------------------------------------------------------------------------------------

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
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

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
