"""Reductions of an attention map that never store the map: rows are formed block by block and summed at once."""

from __future__ import annotations

import torch

BLOCK = 256  # query rows at a time: bounds memory at H · BLOCK · (P + N) floats


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
        block: query rows formed at a time.

    Returns:
        ``given`` (N,) float32, attention a token gives to visual tokens, s₁[i] = 1/N Σ_j Ā[i, j]; and ``received`` (N,)
        float32, attention it gets from them, s₂[j] = 1/N Σ_i Ā[i, j].
    """
    visual = query.shape[1] - prefix
    given = torch.empty(visual, dtype=torch.float32, device=query.device)
    received = torch.zeros(visual, dtype=torch.float32, device=query.device)
    transposed = key.transpose(1, 2)
    for start in range(0, visual, block):
        rows = query[:, prefix + start : prefix + start + block]
        mean = torch.softmax(rows @ transposed * scale, dim=-1, dtype=torch.float32).mean(0)[:, prefix:]  # (block, N)
        given[start : start + block] = mean.sum(1)
        received += mean.sum(0)
    return given / visual, received / visual
