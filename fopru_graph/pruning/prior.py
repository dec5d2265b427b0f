"""Attention with the model's prior taken out (PriorTR, arXiv 2606.24156)."""

from __future__ import annotations

import torch

from fopru_graph.pruning.in_llm import attention_of
from fopru_graph.values import LayerView


def prior_corrected_attention(view: LayerView) -> torch.Tensor:
    """P · log(P / Q) of every visual token, 0 for all others.

    P is the attention of the last prompt token, Q that of the first text token behind the last visual one, which has
    seen the images but not the question; both are averaged over heads and sum to 1 over a sample's visual tokens. Where
    no token stands between the images and the last token, the score is P: there is no prior to take out.

    Returns:
        (B, M) float32.
    """
    visual, text = view.visual.to(view.query.device), view.text.to(view.query.device)
    last = visual.shape[1] - 1
    index = torch.arange(last + 1, device=visual.device)
    behind = text & (index > (visual * index).amax(1, keepdim=True))
    null = torch.where(behind, index, last).amin(1, keepdim=True)  # (B, 1)
    rows = torch.cat([null, torch.full_like(null, last)], 1)
    seen = attention_of(view, rows).masked_fill(~visual[:, None], 0.0)
    tiny = torch.finfo(seen.dtype).tiny
    prior, posterior = (seen / seen.sum(-1, keepdim=True).clamp_min(tiny)).unbind(1)
    gain = posterior * (posterior.clamp_min(tiny).log() - prior.clamp_min(tiny).log())
    return torch.where(null == last, posterior, gain)
