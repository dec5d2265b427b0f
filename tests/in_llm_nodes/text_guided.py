from __future__ import annotations

import torch

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class TextGuidedPrune(Node):
    """Keep the visual tokens that the question's own tokens attend to (after SparseVLM, arXiv 2410.04417)."""

    def run(self, layer: int = 2, ratio: float = 0.5) -> values.InLLMPruner:
        return values.InLLMPruner(text_attention, layer, ratio)


def text_attention(view: values.LayerView) -> torch.Tensor:
    """Mean attention that text tokens pay; those that look at pictures more than the mean of them rate."""
    key = view.key.repeat_interleave(view.query.shape[1] // view.key.shape[1], 1)
    seen = (view.visual | view.text)[:, None, :] & (view.places[:, None, :] <= view.places[:, :, None])
    logits = (view.query @ key.mT * view.scale).float().masked_fill(~seen[:, None], -1e9)
    weights = logits.softmax(-1).mean(1)  # (B, M, M)
    looks = (weights * view.visual[:, None, :]).sum(-1).masked_fill(~view.text, 0)
    raters = looks >= looks.sum(1, keepdim=True) / view.text.sum(1, keepdim=True)
    return (weights * (raters & view.text)[..., None]).sum(1)
