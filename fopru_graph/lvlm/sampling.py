"""Choosing the next token."""

from __future__ import annotations

import torch


def pick_tokens(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Next ids (B,) from logits (B, V): the most likely at temperature 0, else a draw from softmax(logits / t)."""
    if temperature == 0:
        return logits.argmax(-1)
    weights = torch.softmax(logits.float() / temperature, -1)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]
