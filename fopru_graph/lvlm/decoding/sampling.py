"""Choosing the next tokens of a batch, and noticing when every sample has come to its end."""

from __future__ import annotations

import torch

from fopru_graph.lvlm.families.family import Family


class Sampler:
    """Picks one token a sample and step.

    Args:
        family: whose stop tokens end an answer.
        batch: number of samples B.
        temperature: 0 takes the most likely token, above it draws from softmax(logits / temperature).
        seed: of the drawing.
        least: stop tokens are not taken before so many others.
    """

    def __init__(self, family: Family, batch: int, temperature: float, seed: int, least: int = 0) -> None:
        self._temperature, self._least, self._picked = temperature, least, 0
        self._stop = torch.tensor(sorted(family.stop_ids), device=family.device) if family.stop_ids else None
        self._pad = family.processor.tokenizer.pad_token_id or 0
        self._finished = torch.zeros(batch, dtype=torch.bool, device=family.device)
        self._device = family.device
        self._generator = torch.Generator(device=family.device).manual_seed(seed) if temperature else None

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """Next ids (B,) from logits (B, V); samples that have ended get padding."""
        logits = logits.to(self._device)
        if self._stop is not None and self._picked < self._least:
            logits = logits.index_fill(1, self._stop, -torch.inf)
        self._picked += 1
        if self._generator is None:
            ids = logits.argmax(-1)
        else:
            weights = torch.softmax(logits.float() / self._temperature, -1)
            ids = torch.multinomial(weights, 1, generator=self._generator)[:, 0]
        return ids if self._stop is None else torch.where(self._finished, self._pad, ids)

    def all_finished(self, ids: torch.Tensor) -> bool:
        """Whether every sample has a stop token now; waits until ``ids`` are known."""
        if self._stop is None:
            ids.cpu()
            return False
        self._finished = self._finished | torch.isin(ids, self._stop)
        return bool(self._finished.all())
