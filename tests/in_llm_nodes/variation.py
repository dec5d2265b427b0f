from __future__ import annotations

import torch

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class VariationPrune(Node):
    """Keep the visual tokens that a layer changes most (V2Drop's rule)."""

    def run(self, layer: int | float = 2, ratio: float = 0.5) -> values.InLLMPruner:
        return values.InLLMPruner(variation, layer, ratio, reads=(-2,))


def variation(view: values.LayerView) -> torch.Tensor:
    return (view.hidden - view.hidden_after(-2)).float().norm(dim=-1)
