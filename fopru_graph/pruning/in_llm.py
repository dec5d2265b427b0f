"""Pruning inside the language model: FastV's score (arXiv 2403.06764), and which positions survive a cut.

FastV's code ranks visual tokens by the attention of the last prompt token, averaged over heads, in the layer before the
first short one; the paper's text speaks of an average over all tokens. We follow the code, as later comparisons do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.values import LayerView

_TEXT, _VISUAL, _PADDING = 0, 1, 2


def last_token_attention(view: LayerView) -> torch.Tensor:
    """Attention of the last prompt token to every token, averaged over heads: one vector–matrix product a head.

    Returns:
        (B, M) float32; each sample's attention sums to one.
    """
    batch, _, length, _ = view.query.shape
    return attention_of(view, torch.full((batch, 1), length - 1, device=view.query.device))[:, 0]


def attention_of(view: LayerView, rows: torch.Tensor) -> torch.Tensor:
    """Attention of some tokens to every token, averaged over heads, from what the model's own attention got.

    Args:
        view: see `LayerView`; without a mask, and with one of two dimensions, a token sees those before it.
        rows: (B, R) int64, indices of the tokens that attend; they are taken in blocks.

    Returns:
        (B, R, M) float32; each row sums to one.
    """
    batch, heads, length, _ = view.query.shape
    keys = view.key.float().mT  # float32: half precision would overflow, or round away what tells tokens apart
    step = queries_at_a_time(view.query.device, batch * heads * length)
    return torch.cat([_attention_of(view, keys, block) for block in torch.split(rows, step, 1)], 1)


def _attention_of(view: LayerView, keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`attention_of` with all keys as (B, G, d, M) float32."""
    mask, (batch, heads, length, size) = view.mask, view.query.shape
    sample = torch.arange(batch, device=rows.device)[:, None]
    query = view.query.transpose(1, 2)[sample, rows].transpose(1, 2).float()  # (B, H, R, d)
    logits = (query.reshape(batch, keys.shape[1], -1, size) * view.scale) @ keys
    logits = logits.view(batch, heads, -1, length)
    if mask is None or mask.dim() == 2:
        seen = torch.arange(length, device=rows.device) <= rows[:, None, :, None]  # (B, 1, R, M)
        seen = seen if mask is None else seen & mask[:, None, None].bool()
    else:
        seen = torch.take_along_dim(mask, rows[:, None, :, None], 2)
    if seen.dtype != torch.bool:  # the lowest number of a half-precision mask may be above a float32 logit
        logits, seen = logits + seen, seen > torch.finfo(seen.dtype).min
    logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    return torch.softmax(logits, dim=-1).mean(1)


def text_behind(view: LayerView) -> torch.Tensor:
    """(B, M) bool: the text behind the sample's first visual token, which is what can look at its pictures."""
    first = view.places.masked_fill(~view.visual, torch.iinfo(torch.int64).max).amin(1, keepdim=True)
    return view.text & (view.places > first)


def surviving_positions(
    scores: torch.Tensor, visual: torch.Tensor, valid: torch.Tensor, kept: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that stay: all valid text and the best-scored visual tokens of each sample.

    The host knows beforehand how many stay, so it never waits for the device here.

    Args:
        scores: (B, L) score of every position; only visual positions compete, and of equal ones the lower index stays.
        visual: (B, L) bool, True for visual tokens.
        valid: (B, L) bool, False for padding.
        kept: (B,) number of positions that stay: all valid text of the sample and some of its visual tokens.

    Returns:
        ``positions`` (B, M) int64 with M = max(kept), ascending, with fillers on the left of samples that keep fewer;
        and ``real`` (B, M) bool, False for fillers.
    """
    kind = torch.full_like(scores, _TEXT, dtype=torch.int8)
    kind = kind.masked_fill(visual, _VISUAL).masked_fill(~valid, _PADDING)
    order = scores.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, kind.gather(1, order).argsort(dim=1, stable=True))  # text, then visual, then padding
    longest = max(kept)
    column = torch.arange(longest, device=scores.device)
    beyond = torch.stack([column >= count for count in kept])  # numbers go along with a kernel, a tensor is copied
    positions = order[:, :longest].masked_fill(beyond, -1).sort(1).values
    return positions.clamp(min=0), positions >= 0
