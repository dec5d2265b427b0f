"""What running a decoder layer by layer must know of it; a family says what differs from LLaMA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch


class Layerwise(ABC):
    """A decoder that is embeddings, layers and a norm, and what its stock forward does besides calling them."""

    layerwise_texts: ClassVar[frozenset[str]] = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # all else is known
    windows_in_prompt: ClassVar[bool] = True  # False: sliding windows hide the prompt from the answer only

    @property
    @abstractmethod
    def language_model(self) -> Any:
        """The stock decoder stack, without the output head."""

    @property
    def layer_kinds(self) -> list[str]:
        """The kind of every decoder layer, as ``config.layer_types`` names it."""
        config = self.language_model.config
        kinds: list[str] | None = getattr(config, "layer_types", None)
        return kinds or ["full_attention"] * config.num_hidden_layers

    def rotary(self, hidden: torch.Tensor, positions: torch.Tensor) -> Mapping[str, Any]:
        """What layers of each kind rotate by at ``positions`` (B, Q) or (P, B, Q), in the type of ``hidden``."""
        return dict.fromkeys(self.layer_kinds, self.language_model.rotary_emb(hidden, positions))

    def sees_until(self, prompt: Any) -> torch.Tensor | None:
        """(B, L) int64: up to which index each token of a `prompt.Prompt` sees the others; None: up to its own."""
        return None

    def after_layer(self, layer: int, hidden: torch.Tensor, prompt: Any) -> torch.Tensor:
        """What the next layer gets of a whole prompt's hidden states (B, L, E) after ``layer``."""
        return hidden
