"""The language side of a model, which families share: how a prompt becomes tokens, and the decoder that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fopru_graph.lvlm.families.layerwise import Layerwise
from fopru_graph.lvlm.families.modules import copy_to, execution_device


class LanguageSide(Layerwise):
    """The decoder of a stock model and what stands around the pictures in its prompts.

    Attributes:
        model: the stock model, untyped, as transformers types no part that all models have.
        processor: the stock processor.
    """

    model: Any
    processor: Any

    # -- where the stock model keeps its parts -------------------------------------------------------------------

    language_model_path: ClassVar[str] = "model.language_model"
    decoder_path: ClassVar[str | None] = None  # a module around the language model that makes its masks

    @property
    def language_model(self) -> Any:
        """The stock decoder stack, without the output head."""
        return self.model.get_submodule(self.language_model_path)

    @property
    def layers(self) -> Any:
        """The decoder layers, in order."""
        return self.language_model.layers

    @property
    def decoder(self) -> Any:
        """The stock module that takes embedded prompts: the decoder stack, or the module around it that makes masks."""
        return self.model.get_submodule(self.decoder_path or self.language_model_path)

    # -- prompts -------------------------------------------------------------------------------------------------

    first_position: int = 0  # of a prompt's first token, if positions are renumbered
    line_end_id: int | None = None  # a token of the markup that is dropped with the last visual token of its line
    after_image: ClassVar[str] = "\n"  # what follows the images that come before a question, without a chat template
    video_placeholder: str | None = None  # what the chat template writes for a video; None: a video is called an image

    @property
    def placeholder(self) -> str:
        """The text that stands for an image in the chat template's output."""
        return str(self.processor.tokenizer.decode([self.image_token_id]))

    def template(self, prompt: str) -> str | None:
        """The prompt in the family's format if it has no chat template; None for LLaVA's plain one."""
        return None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a whole prompt, with the first token that a text begins with."""
        tokenizer = self.processor.tokenizer
        begins = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)  # some templates write it
        ids: list[int] = tokenizer(text, add_special_tokens=not begins).input_ids
        return ids

    def positions(
        self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]], frame_rates: Sequence[float] = ()
    ) -> torch.Tensor | None:
        """Positions (P, L) of the whole, unpruned prompt, which kept tokens keep; None to renumber kept tokens.

        ``grids`` are the (frames, h, w) of the prompt's images, ``frame_rates`` the frames a second of its videos.
        """
        return None

    # -- decoder -------------------------------------------------------------------------------------------------

    def prefill_inputs(self, prompt: Any) -> dict[str, Any]:
        """What the decoder needs for a `prompt.Prompt` besides embeddings, mask, positions and cache."""
        return {}

    @property
    def first_cut(self) -> int:
        """The first decoder layer from which on visual tokens may be dropped."""
        return 1

    @property
    def image_token_id(self) -> int:
        """The placeholder of one visual token in the prompt."""
        return int(self.model.config.image_token_id)

    @property
    def pad_id(self) -> int:
        """The token that fills prompts and ended answers up: the tokenizer's if it has an embedding, else token 0."""
        pad = self.processor.tokenizer.pad_token_id
        return pad if pad is not None and pad < self.model.get_input_embeddings().num_embeddings else 0

    @property
    def device(self) -> torch.device:
        """Where prompts enter the language model."""
        return execution_device(self.model.get_input_embeddings())

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy where prompts enter the language model, see `copy_to`."""
        return copy_to(tensor, self.device)

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
