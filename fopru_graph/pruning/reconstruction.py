"""How badly a few basis tokens reconstruct each visual token (ApET, arXiv 2602.19870)."""

from __future__ import annotations

import torch

from fopru_graph.pruning.gram import Gram
from fopru_graph.pruning.greedy import Determinant, Farthest, greedy_select


def reconstruction_error(features: torch.Tensor, basis: int = 10) -> torch.Tensor:
    """The length of what least squares leave of each token when the basis tokens reconstruct it.

    The basis is the longest token, then ``basis`` − 1 times the one that is farthest from its nearest basis token.

    Args:
        features: (B, N, C) of any floating type, of B tiles.
        basis: number of basis tokens; all tokens where there are fewer.

    Returns:
        (B, N) float32; 0 for the basis tokens themselves.
    """
    vectors = features.float()
    count = min(basis, vectors.shape[1])
    gram = Gram(vectors, count)
    picks = greedy_select(Farthest(gram, gram.diagonal), count)
    basis_tokens = Determinant(gram, count)
    for pick in picks.unbind(1):
        basis_tokens.take(pick, basis_tokens.scores().gather(1, pick[:, None])[:, 0])
    return basis_tokens.left.clamp(min=0).sqrt().scatter(1, picks, 0.0)
