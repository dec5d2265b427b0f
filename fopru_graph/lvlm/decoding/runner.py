"""How a decoder stack is driven: prefill once, then one token a step. Three ways of it agree with one another.

`StockRunner` calls the stock forward and works for every family; `segments` runs the layers itself, each cut's segment
with a preallocated KV cache; `static` repeats a step of fixed shape, captured as a CUDA graph.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from fopru_graph.lvlm.decoding.hooks import hooked
from fopru_graph.lvlm.decoding.kept import Survivors
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.lvlm.loading.compat import cache_argument

KeyValues = tuple[torch.Tensor, torch.Tensor]  # of one layer, (B, G, T, d) each


class DecoderRunner(ABC):
    """One prompt's way through the decoder stack; used as a context manager, because it may hook layers."""

    def __init__(self, family: Family, prompt: Prompt, survivors: Survivors, room: int) -> None:
        self.family, self.prompt, self.survivors = family, prompt, survivors
        self.room = room  # tokens that may come after the prompt
        self._surgery = contextlib.ExitStack()

    @abstractmethod
    def prefill(self, prefix: Sequence[KeyValues] | None = None) -> torch.Tensor:
        """Run the prompt and return the logits (B, V) of its last position.

        ``prefix`` holds the keys and values of the prompt's first tokens, which then are not run again.
        """

    @abstractmethod
    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Append one token a sample, ``ids`` (B,), and return the logits (B, V) that follow it."""

    @abstractmethod
    def filled(self) -> list[KeyValues]:
        """Each layer's keys and values as far as they are filled."""

    def reusable(self) -> list[KeyValues]:
        """Keys and values of the prompt at least, in tensors that no later run writes to."""
        return self.filled()

    def __enter__(self) -> DecoderRunner:
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the model as it was."""
        self._surgery.close()


class StockRunner(DecoderRunner):
    """The stock forward of the language model, pruned by hooks; exact, for every family."""

    def __init__(self, family: Family, prompt: Prompt, survivors: Survivors, room: int) -> None:
        super().__init__(family, prompt, survivors, room)
        # Made without the config it has full layers only: sliding windows are then kept by the mask, which can be cut.
        self._cache = DynamicCache()
        self._mask = prompt.attention_mask if prompt.padded else None  # without padding no mask: the fast kernels
        self._positions = prompt.positions

    def __enter__(self) -> DecoderRunner:
        self._surgery.enter_context(hooked(self.family, self.survivors))
        return self

    def prefill(self, prefix: Sequence[KeyValues] | None = None) -> torch.Tensor:
        """See `DecoderRunner.prefill`."""
        known = 0 if prefix is None else prefix[0][0].shape[2]
        for index, (keys, values) in enumerate(prefix or ()):
            self._cache.update(keys, values, index)
        more = self.family.prefill_inputs(self.prompt)
        return self._forward(self.prompt.embeds[:, known:], self._positions[..., known:], **more)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """See `DecoderRunner.step`."""
        self._positions = self._positions[..., -1:] + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        return self._forward(self.family.embed(ids[:, None]), self._positions)

    def filled(self) -> list[KeyValues]:
        """See `DecoderRunner.filled`."""
        return [(layer.keys, layer.values) for layer in self._cache.layers]

    def _forward(self, embeds: torch.Tensor, positions: torch.Tensor, **more: Any) -> torch.Tensor:
        hidden = self.family.decoder(
            inputs_embeds=embeds,
            attention_mask=self._mask,
            position_ids=positions,
            use_cache=True,
            **{cache_argument(): self._cache},
            **more,
        ).last_hidden_state
        return self.family.logits(hidden[:, -1])
