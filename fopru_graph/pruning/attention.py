"""Scores from the attention of the vision encoder: FoPru's significance and the attention of the CLS token.

No attention map is ever stored: it is formed and summed block by block.
"""

from __future__ import annotations

from typing import Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.values import TileAttention

CPU_BLOCK = 1 << 19  # attention weights formed at a time (2 MiB, float32), so that they stay in a processor's cache
CPU_QUERIES = 32  # but no fewer queries: the keys are packed anew for every block, and smaller products do not pay that
DEVICE_BLOCK = 1 << 25  # on a device every block costs launches; larger ones would take no less time
DEVICE_SHARE = 1 << 10  # a block has no more weights than a 1024th of the device's bytes: 1/256 of its memory

Direction = Literal["auto", "received", "given"]
Heads = Literal["mean", "joint"]


def queries_at_a_time(device: torch.device, row: int) -> int:
    """How many queries to compare with all keys at once, at least one; a query has ``row`` weights over all heads."""
    if device.type == "cpu":
        return max(CPU_QUERIES, CPU_BLOCK // row)
    if device.type == "cuda" and torch.cuda.is_available():  # tensors may be simulated where there is no such device
        share = torch.cuda.get_device_properties(device).total_memory // DEVICE_SHARE
        return max(1, min(DEVICE_BLOCK, share) // row)
    return max(1, DEVICE_BLOCK // row)


def attention_means(
    query: torch.Tensor, key: torch.Tensor, scale: float, prefix: int = 0, block: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean attention that visual tokens give to and receive from each other, averaged over heads (FoPru Eq. 2 and 3).

    The softmax runs over all P + N tokens. Then the attention from and to the P prefix tokens is cut off without
    renormalising: the paper does not say what becomes of the CLS token, but its N tokens are those of the grid.

    Args:
        query: (H, P + N, d), after any rotary embedding.
        key: (H, P + N, d), likewise.
        scale: factor on the logits, usually 1 / √d.
        prefix: P, the number of leading tokens that are no visual tokens, e.g. CLS.
        block: attention weights formed at a time, over all heads; at least one query. None for what suits the device.
            It changes no more than the rounding of the sums.

    Returns:
        ``given`` (N,) float32, the mean over keys s₁[i] = 1/N Σ_j Ā[i, j]; and ``received`` (N,) float32, the mean over
        queries s₂[j] = 1/N Σ_i Ā[i, j].
    """
    heads, tokens, _ = query.shape
    visual = tokens - prefix
    row = heads * tokens
    step = queries_at_a_time(query.device, row) if block is None else max(1, block // row)
    # Logits in float32: half precision would overflow or round away what tells one token from the next.
    query = query[:, prefix:].float() * scale
    transposed = key.transpose(1, 2).contiguous().float()  # once, else a CPU does it in the product of every block
    given = torch.empty(visual, dtype=torch.float32, device=query.device)
    received = torch.zeros(visual, dtype=torch.float32, device=query.device)
    for start in range(0, visual, step):
        weights = torch.softmax(query[:, start : start + step] @ transposed, dim=-1)
        mean = weights.mean(0)[:, prefix:]  # (step, N)
        given[start : start + step] = mean.sum(1)
        received += mean.sum(0)
    return given / visual, received / visual


def significance(
    given: torch.Tensor, received: torch.Tensor, direction: Direction = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of both mean attentions take the one with the larger variance (FoPru Eq. 4); a tie goes to ``received``.

    The attention that a token gives sums to one, so ``given`` is all but constant and ``received`` wins on real
    encoders. The paper's ablation "w/o variance" is ``direction="given"``.

    Args:
        given: s₁ (N,) of `attention_means`.
        received: s₂ (N,) of `attention_means`.
        direction: ``auto`` compares variances in float32; ``received`` and ``given`` take that one.

    Returns:
        The scores (N,) float32, and a () bool: whether ``received`` was taken. Both stay on the device; nothing waits.

    Raises:
        UserError: ``direction`` is none of the three.
    """
    if direction not in ("auto", "received", "given"):
        raise UserError(f"direction {direction!r} is unknown", "choose auto, received or given")
    given, received = given.float(), received.float()
    if direction == "auto":
        take_received = given.var(correction=0) <= received.var(correction=0)
    else:
        take_received = torch.full((), direction == "received", device=given.device)
    return torch.where(take_received, received, given), take_received


def cls_attention(attention: TileAttention, heads: Heads = "mean") -> torch.Tensor:
    """Attention that the CLS token pays to each patch.

    The softmax runs over all P + M tokens. Then the attention to the P prefix tokens is cut off without renormalising.
    ``mean`` averages over the heads (FasterVLM, arXiv 2412.01818). ``joint`` takes all heads as one of width H · d and
    scales logits by 1 / √(H · d), as the code of PruMerge (arXiv 2403.15388) does with the outputs of the query and key
    projections.

    Args:
        attention: queries and keys of P + M tokens, of which the first is CLS.
        heads: ``mean`` or ``joint``.

    Returns:
        (M,) float32, non-negative, with a sum of at most one.

    Raises:
        UserError: there is no CLS token, or ``heads`` is unknown.
    """
    if heads not in ("mean", "joint"):
        raise UserError(f"heads {heads!r} is unknown", "choose mean or joint")
    if not attention.has_cls:
        raise UserError(
            "the vision tower has no CLS token whose attention could score the others",
            "score by the attention received: type: Significance",
        )
    query = attention.query[:, :1].float() * attention.scale
    logits = query @ attention.key.float().transpose(1, 2)  # (H, 1, P + M)
    if heads == "joint":
        logits = logits.sum(0, keepdim=True) / len(logits) ** 0.5
    return torch.softmax(logits, dim=-1).mean(0)[0, attention.prefix :]


def visual_keys(attention: TileAttention, heads: Heads = "mean") -> torch.Tensor:
    """The keys of each visual token: their mean over the heads, (N, d) float32, or joint, side by side, (N, H · d).

    Where a model merges patches, a token's are the means of those of its patches.
    """
    keys = attention.key[:, attention.prefix :]
    keys = keys.mean(0, dtype=torch.float32) if heads == "mean" else keys.transpose(0, 1).flatten(1)
    return pool_scores(keys, attention.patch_groups, attention.weights)


def pool_scores(
    scores: torch.Tensor, patch_groups: torch.Tensor | None, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Average the scores (or keys) of the patches that the model merges into each visual token.

    Args:
        scores: (M,) of the patches, or (M, C) for vectors; of any floating type, averaged in float32.
        patch_groups: (N, m) int64, the patches of each visual token; None if every patch is a visual token.
        weights: (N, m) shares of the patches, which sum to one for each token; None for equal shares.

    Returns:
        (N,) or (N, C) of the visual tokens.
    """
    if patch_groups is None:
        return scores
    if weights is None:
        return scores[patch_groups].mean(1, dtype=torch.float32)
    return (scores[patch_groups] * weights.view(*weights.shape, *[1] * (scores.dim() - 1))).sum(1)
