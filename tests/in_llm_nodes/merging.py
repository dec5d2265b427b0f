from __future__ import annotations

import torch
from torch.nn.functional import normalize, one_hot

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.pruning.in_llm import last_token_attention


@node(category="prune")
class MergePrune(Node):
    """FastV whose dropped tokens go into the most similar token of their image that stays."""

    def run(self, layer: int = 2, ratio: float = 0.5) -> values.InLLMPruner:
        return values.InLLMPruner(last_token_attention, layer, ratio, merge=into_nearest)


def into_nearest(view: values.LayerView, keep: torch.Tensor) -> torch.Tensor:
    """Means of each kept token and those that are nearest to it; (B, K, M)."""
    states, image = normalize(view.hidden.float(), dim=-1), view.image
    kept_image = image.gather(1, keep).masked_fill(~view.visual.gather(1, keep), -2)
    alike = states.gather(1, keep[..., None].expand(-1, -1, states.shape[-1])) @ states.mT
    alike = alike.masked_fill(kept_image[..., None] != image[:, None], -2)  # (B, K, M)
    nearest = one_hot(alike.argmax(1), keep.shape[1]).mT.float() * (image >= 0)[:, None]
    stays = one_hot(keep, states.shape[1]).float()
    weights = torch.where(stays.sum(1, keepdim=True) > 0, stays, nearest)
    return weights / weights.sum(-1, keepdim=True)
