from __future__ import annotations

import torch

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.pruning.in_llm import last_token_attention


@node(category="prune")
class AboveMeanPrune(Node):
    """Keep the visual tokens that get more than the mean attention, as many as they are."""

    def run(self, layer: int = 2) -> values.InLLMPruner:
        return values.InLLMPruner(above_mean, layer)


def above_mean(view: values.LayerView) -> torch.Tensor:
    scores = last_token_attention(view).masked_fill(~view.visual, 0)
    return scores > scores.sum(1, keepdim=True) / view.visual.sum(1, keepdim=True)
