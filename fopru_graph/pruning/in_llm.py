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
    query, key, mask = view.query, view.key, view.mask
    batch, heads, _, size = query.shape
    groups = key.shape[1]
    # In float32: half precision would overflow, or round away what tells one token from the next.
    last = query[:, :, -1].float().view(batch, groups, heads // groups, size) * view.scale
    logits = (last @ key.float().transpose(-1, -2)).flatten(1, 2)  # (B, H, M)
    if mask is not None:
        seen = mask[:, None, :].bool() if mask.dim() == 2 else mask[:, :, -1]  # (B or 1, 1, M)
        if seen.dtype != torch.bool:  # the lowest number of a half-precision mask may be above a float32 logit
            logits, seen = logits + seen, seen > torch.finfo(seen.dtype).min
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    return torch.softmax(logits, dim=-1).mean(1)


def row_attention(view: LayerView, rows: torch.Tensor) -> torch.Tensor:
    """Attention of some tokens to all, averaged over heads, formed in blocks of rows.

    Args:
        view: B samples of M tokens.
        rows: (B, R) int64, indices of the tokens that attend; repeats are allowed.

    Returns:
        (B, R, M) float32; each row sums to one, over what the token saw in layer K − 1.
    """
    query, keys = view.query, view.key.float().mT  # float32 for the reason above
    (batch, heads, tokens, _), groups = query.shape, keys.shape[1]
    step = queries_at_a_time(query.device, batch * heads * tokens)
    parts = []
    for index in torch.split(rows, step, 1):
        asking = torch.take_along_dim(query, index[:, None, :, None], 2).float() * view.scale
        logits = (asking.reshape(batch, groups, -1, keys.shape[2]) @ keys).view(batch, heads, -1, tokens)
        parts.append(torch.softmax(_hidden_keys(logits, view, index), -1).mean(1))
    return torch.cat(parts, 1)


def _hidden_keys(logits: torch.Tensor, view: LayerView, index: torch.Tensor) -> torch.Tensor:
    """Logits (B, H, R, M) of the rows ``index`` (B, R) without the keys that those tokens do not see."""
    mask = view.mask
    if mask is None or mask.dim() == 2:  # the kernel was causal by itself
        seen = view.places[:, None, :] <= view.places.gather(1, index)[..., None]
        seen = seen if mask is None else seen & mask[:, None, :].bool()
        return logits.masked_fill(~seen[:, None], torch.finfo(logits.dtype).min)
    seen = torch.take_along_dim(mask.expand(len(index), -1, -1, -1), index[:, None, :, None], 2)
    if seen.dtype != torch.bool:
        logits, seen = logits + seen, seen > torch.finfo(seen.dtype).min
    return logits.masked_fill(~seen, torch.finfo(logits.dtype).min)


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
