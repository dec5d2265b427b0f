"""How much a layer changes a token (V2Drop, arXiv 2509.01552)."""

from __future__ import annotations

import torch

from fopru_graph.values import LayerView


def variation(view: LayerView) -> torch.Tensor:
    """(B, M) float32: the L2 norm of what the layer below the cut changes of each token's hidden state."""
    change: torch.Tensor = torch.linalg.vector_norm(view.hidden - view.hidden_after(-2).float(), dim=-1)
    return change
