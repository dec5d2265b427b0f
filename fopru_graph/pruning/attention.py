"""Reductions of an attention map that never store the map: rows are formed block by block and summed at once."""

from __future__ import annotations

from typing import Literal

import torch

from fopru_graph.errors import UserError

BLOCK = 1 << 23  # attention weights formed at a time (32 MiB), whatever the numbers of heads, tokens and layers

Heads = Literal["mean", "joint"]


def attention_means(
    query: torch.Tensor, key: torch.Tensor, scale: float, prefix: int = 0, block: int = BLOCK
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column mean of the head-averaged attention map between visual tokens (FoPru Eq. 2 and 3).

    Softmax runs over all P + N tokens; then the P prefix rows and columns are cut off without renormalising.

    Args:
        query: (H, P + N, d), after any rotary embedding.
        key: (H, P + N, d), likewise.
        scale: factor on the logits, usually 1 / √d.
        prefix: P, the number of leading tokens that are no visual tokens.
        block: attention weights formed at a time, over all heads; at least one query row.

    Returns:
        ``given`` (N,) float32, attention a token gives to visual tokens, s₁[i] = 1/N Σ_j Ā[i, j]; and ``received`` (N,)
        float32, attention it gets from them, s₂[j] = 1/N Σ_i Ā[i, j].
    """
    heads, tokens, _ = query.shape
    visual = tokens - prefix
    rows = max(1, block // (heads * tokens))
    # Logits in float32: half precision would overflow or round away what tells one token from the next.
    query, transposed = query[:, prefix:].float() * scale, key.float().transpose(1, 2)
    given = torch.empty(visual, dtype=torch.float32, device=query.device)
    received = torch.zeros(visual, dtype=torch.float32, device=query.device)
    for start in range(0, visual, rows):
        weights = torch.softmax(query[:, start : start + rows] @ transposed, dim=-1)
        mean = weights.mean(0)[:, prefix:]  # (rows, N)
        given[start : start + rows] = mean.sum(1)
        received += mean.sum(0)
    return given / visual, received / visual


def cls_attention(
    query: torch.Tensor, key: torch.Tensor, scale: float, prefix: int, heads: Heads = "mean"
) -> torch.Tensor:
    """Attention that the CLS token pays to the visual tokens: one row of the map.

    Softmax runs over all P + N tokens; then the P prefix columns are cut off without renormalising. ``mean`` averages
    the rows of the heads (FasterVLM, arXiv 2412.01818); ``joint`` takes all heads for one of width H · d with 1 / √(H ·
    d) on the logits (PruMerge, arXiv 2403.15388, whose code does so with the raw projections).

    Args:
        query: (H, P + N, d), after any rotary embedding; the first row is CLS.
        key: (H, P + N, d), likewise.
        scale: factor on the logits of a head, usually 1 / √d.
        prefix: P, the number of leading tokens that are no visual tokens, CLS the first of them.
        heads: ``mean`` or ``joint``.

    Returns:
        (N,) float32, non-negative, with a sum of at most one.

    Raises:
        UserError: there is no CLS token, or ``heads`` is unknown.
    """
    if heads not in ("mean", "joint"):
        raise UserError(f"heads {heads!r} is unknown", "choose mean or joint")
    if prefix < 1:
        raise UserError(
            "the vision tower has no CLS token whose attention could score the others",
            "score by the attention received: type: Significance",
        )
    logits = (query[:, :1].float() * scale) @ key.float().transpose(1, 2)  # (H, 1, P + N)
    if heads == "joint":
        logits = logits.sum(0, keepdim=True) / len(query) ** 0.5
    return torch.softmax(logits, dim=-1).mean(0)[0, prefix:]
