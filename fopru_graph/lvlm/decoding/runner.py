"""How the decoder is driven: the prompt once (prefill), then one token a step. Three runners agree with one another.

`StockRunner` calls the stock forward and works for every family; `segments.SegmentRunner` runs the layers itself, each
segment between two cuts with preallocated KV caches; `captured.CapturedRunner` repeats a step of fixed shape, captured
as a CUDA graph.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from transformers import DynamicCache

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.hooks import pruned
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.masks import sliding_windows
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.values import InLLMPruner

KeyValues = tuple[torch.Tensor, torch.Tensor]  # of one layer, (B, G, T, d) each


class DecoderRunner(ABC):
    """Runs one batch of prompts and its answers, inside a ``with runner.hooks():`` block.

    Args:
        family: the model.
        prompt: the embedded prompts.
        pruners: pruning inside the language model.
        room: tokens that may come after the prompt.
        prefix: each layer's keys and values of the prompt's first tokens, which then are not run again; only without
            pruners.
    """

    loop: ClassVar[str]  # as `generate` names it
    once: frozenset[int] = frozenset({0})  # indices of the steps that also did work that is done once

    def __init__(
        self,
        family: Family,
        prompt: Prompt,
        pruners: Sequence[InLLMPruner],
        room: int,
        prefix: Sequence[KeyValues] = (),
    ) -> None:
        self.family, self.prompt, self.room = family, prompt, room
        self._prefix = list(prefix)  # emptied by the prefill, so that no layer is held twice for long
        self.cuts = Cuts(family, pruners, prompt)
        self.reused = prefix[0][0].shape[2] if prefix else 0  # tokens of the prefix

    def hooks(self) -> contextlib.AbstractContextManager[None]:
        """Whatever hooks the run needs on the model, for the time of a ``with`` block."""
        return contextlib.nullcontext()

    @abstractmethod
    def prefill(self) -> torch.Tensor:
        """Run the prompt and return the logits (B, V) of its last position. Called once, before any `step`."""

    @abstractmethod
    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Append one token a sample, ``ids`` (B,), and return the logits (B, V) that follow it."""

    @abstractmethod
    def filled(self) -> list[KeyValues]:
        """Each layer's keys and values as far as they are filled."""

    @property
    def captured(self) -> bool:
        """Whether steps replay a CUDA graph."""
        return False

    def take_prefix(self) -> Iterator[KeyValues]:
        """Each layer's keys and values of the prefix in the model's type; it is held no longer."""
        while self._prefix:
            keys, values = self._prefix.pop(0)
            yield keys.to(self.prompt.embeds.dtype), values.to(self.prompt.embeds.dtype)


def check_places(family: Family, prompt: Prompt) -> None:
    """Refuse gaps in positions that the stock forward cannot respect: its sliding windows count the tokens they get.

    Raises:
        UserError: kept tokens keep their places, and the model has a window that is shorter than the prompt.
    """
    gaps = prompt.positions.dim() == 2 and max(prompt.spans) > max(prompt.lengths)
    windows = [window for window in sliding_windows(family.language_model.config) if window is not None]
    if gaps and windows and min(windows) < max(prompt.spans):
        raise UserError(
            f"the stock forward counts its sliding window of {min(windows)} in the tokens that are left, not in the "
            f"{max(prompt.spans)} positions of the prompt",
            "use positions: renumbered, or another loop where one drives the model",
        )


class DecoderInputs:
    """What the stock decoder is given for a prompt and then token by token, besides its cache.

    Args:
        family: the model.
        prompt: the embedded prompts.
        reused: tokens of the prompt that are in the cache already.
    """

    def __init__(self, family: Family, prompt: Prompt, reused: int = 0) -> None:
        self._family, self._prompt, self._reused = family, prompt, reused
        self._mask = prompt.attention_mask if prompt.padded else None  # without padding no mask: the fast kernels
        self._positions = prompt.positions[..., reused:]

    def whole_prompt(self) -> dict[str, Any]:
        """The inputs of the prefill."""
        return self._inputs(self._prompt.embeds[:, self._reused :]) | self._family.prefill_inputs(self._prompt)

    def next_tokens(self, embeds: torch.Tensor) -> dict[str, Any]:
        """The inputs of a step that appends one token a sample, embedded: (B, 1, E)."""
        self._positions = self._positions[..., -1:] + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        return self._inputs(embeds)

    def _inputs(self, embeds: torch.Tensor) -> dict[str, Any]:
        return {"inputs_embeds": embeds, "attention_mask": self._mask, "position_ids": self._positions}


class StockRunner(DecoderRunner):
    """The stock forward of the language model, pruned by hooks; exact, for every family."""

    loop = "thin"

    def hooks(self) -> contextlib.AbstractContextManager[None]:
        """See `DecoderRunner.hooks`."""
        return pruned(self.family, self.cuts)

    def prefill(self) -> torch.Tensor:
        """See `DecoderRunner.prefill`."""
        # Made without the config it has full layers only: sliding windows are then kept by the mask, which can be cut.
        self._cache = DynamicCache()
        for index, (keys, values) in enumerate(self.take_prefix()):
            self._cache.update(keys, values, index)
        self._inputs = DecoderInputs(self.family, self.prompt, self.reused)
        return self._forward(self._inputs.whole_prompt())

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`."""
        return self._forward(self._inputs.next_tokens(self.family.embed(ids[:, None])))

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return [(layer.keys, layer.values) for layer in self._cache.layers]

    def _forward(self, inputs: dict[str, Any]) -> torch.Tensor:
        hidden = self.family.decoder(**inputs, use_cache=True, **{cache_argument(): self._cache}).last_hidden_state
        return self.family.logits(hidden[:, -1])
