"""FastV's score: the attention that the last prompt token pays to every position (arXiv 2403.06764).

The authors' code ranks by the last row, averaged over heads, of the layer before the first short one; the paper's text
speaks of an average over all tokens. We follow the code, as every later comparison does.
"""

from __future__ import annotations

import torch


def last_row_attention(
    query: torch.Tensor, key: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Head-averaged attention row of the last query: one vector–matrix product a head.

    Args:
        query: (B, H, L, d), after rotary embedding.
        key: (B, G, L, d) with G key-value heads, H a multiple of G.
        scale: factor on the logits, usually 1 / √d.
        mask: what the model's attention got: None (nothing hidden), bool (B or 1, 1, L, L) with True = visible, the
        same as additive floats, or (B, L) with non-zero = visible.

    Returns:
        (B, L) float32; each row sums to one.
    """
    batch, heads, _, size = query.shape
    groups = key.shape[1]
    last = query[:, :, -1].view(batch, groups, heads // groups, size)
    logits = (last @ key.transpose(-1, -2) * scale).flatten(1, 2)  # (B, H, L)
    if mask is not None:
        row = mask[:, None, :].bool() if mask.dim() == 2 else mask[:, :, -1]  # (B or 1, 1, L)
        logits = logits.masked_fill(~row, torch.finfo(logits.dtype).min) if row.dtype == torch.bool else logits + row
    return torch.softmax(logits, dim=-1, dtype=torch.float32).mean(1)
