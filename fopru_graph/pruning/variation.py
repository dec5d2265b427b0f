"""How much a layer changes a token (V2Drop, arXiv 2509.01552)."""

from __future__ import annotations

import torch

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.values import LayerView


def variation(view: LayerView) -> torch.Tensor:
    """(B, M) float32: the L2 norm of what the layer below the cut changes of each token's hidden state."""
    step = queries_at_a_time(view.hidden.device, view.hidden[:, 0].numel())  # differences stay in a processor's cache
    pairs = zip(torch.split(view.hidden, step, 1), torch.split(view.hidden_after(-2), step, 1), strict=True)
    return torch.cat([torch.linalg.vector_norm(after - before.float(), dim=-1) for after, before in pairs], 1)
