"""How relevant visual tokens are to a question, by the cosine of both in the language model's space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cosine_similarity


def text_relevance(tiles: Sequence[torch.Tensor], embeddings: torch.Tensor) -> list[torch.Tensor]:
    """Cosines of an image's visual tokens to the mean of a question's embeddings, from 0 to 1 over the whole image.

    Where all tokens are equally relevant, each has relevance 1.

    Args:
        tiles: the projected tokens (N, E) of each tile of the image.
        embeddings: (T, E), T at least 1.

    Returns:
        (N,) float32 of each tile.
    """
    cosines = cosine_similarity(torch.cat(list(tiles)).float(), embeddings.float().mean(0, keepdim=True))
    low, high = cosines.aminmax()
    scaled = torch.where(high > low, (cosines - low) / (high - low), 1.0)
    return list(torch.split(scaled, [len(tile) for tile in tiles]))
