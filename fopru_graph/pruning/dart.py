"""DART (arXiv 2502.11494): keep what is least like a few strong tokens, so that no two kept tokens say the same."""

from __future__ import annotations

import torch

from fopru_graph.pruning.in_llm import text_behind
from fopru_graph.pruning.similarity import cosine_blocks
from fopru_graph.values import LayerView


def least_duplicated(view: LayerView, visual_pivots: int = 4, text_pivots: int = 4) -> torch.Tensor:
    """Pivots are the tokens with the largest L1 norm of their keys; each adds the visual tokens least similar to it.

    Visual pivots come first, then those of the text behind the first visual token, each from the strongest on; of equal
    ones the lower index. In turn each of the P pivots adds t of the visual tokens that are left, those with the lowest
    cosine of their hidden states. The budget is spent exactly: K visual tokens stay, visual pivots included, and where
    P does not divide the rest the first pivots add one more. With fewer text tokens there are fewer pivots; a budget of
    fewer tokens than visual pivots keeps the strongest of those.

    Args:
        view: what a pruner with a budget sees.
        visual_pivots, text_pivots: how many.

    Returns:
        (B, M) float32: 1 for what stays, else 0.
    """
    strength = view.key.float().abs().sum((1, 3))
    # Numbers go along with a kernel; a tensor of the host would be copied, which waits.
    budget = torch.cat([torch.full((1,), count, device=strength.device) for count in view.budget])
    text = text_behind(view)
    chosen, kinds = [], []
    for of_kind, most in ((view.visual, visual_pivots), (text, text_pivots)):
        ranked = strength.masked_fill(~of_kind, -1.0).argsort(dim=1, descending=True, stable=True)[:, :most]
        available = of_kind.sum(1) if of_kind is text else budget
        chosen.append(ranked)
        kinds.append(torch.arange(ranked.shape[1], device=ranked.device) < available[:, None])
    pivots, real = torch.cat(chosen, 1), torch.cat(kinds, 1)  # (B, P), and whether the sample has that many
    kept = torch.zeros_like(view.visual).scatter(1, chosen[0], kinds[0]) & view.visual
    rest = (budget - kept.sum(1))[:, None]
    share, over = rest // real.sum(1, keepdim=True).clamp(min=1), rest % real.sum(1, keepdim=True).clamp(min=1)
    quota = (share + (real.cumsum(1) <= over).long()) * real
    states = torch.take_along_dim(view.hidden, pivots[..., None], 1)
    cosines = torch.cat([block for _, block in cosine_blocks(states, view.hidden)], 1)  # (B, P, M)
    for pivot in range(pivots.shape[1]):
        left = view.visual & ~kept
        rank = cosines[:, pivot].masked_fill(~left, 2.0).argsort(dim=1, stable=True).argsort(1)
        kept = kept | (left & (rank < quota[:, pivot, None]))
    return kept.float()
