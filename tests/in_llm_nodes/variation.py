from __future__ import annotations

import torch

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class VariationPrune(Node):
    """Keep the visual tokens that a layer changes most (V2Drop's rule)."""

    def run(self, layer: int = 2, ratio: float = 0.5) -> values.InLLMPruner:
        def variation(view: values.LayerView) -> torch.Tensor:
            return (view.hidden - view.hidden_after(layer - 2)).float().norm(dim=-1)

        return values.InLLMPruner(variation, layer, ratio, reads=(layer - 2,))
