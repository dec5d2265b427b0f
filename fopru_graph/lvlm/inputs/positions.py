"""Which positions the language model is told for the tokens that pruning leaves of a prompt.

``renumbered``: 0, 1, 2, … as if the dropped tokens had never been (the papers of FoPru and most others, on LLaVA).
``original``: every token keeps its position in the unpruned prompt, and so does the answer. ``rebased``: the tokens of
an image keep theirs relative to its beginning, and the text after it goes on behind the largest that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Numbering = Literal["renumbered", "original", "rebased"]


def kept_positions(
    numbering: Numbering, unpruned: torch.Tensor, sources: torch.Tensor, images: Sequence[range]
) -> torch.Tensor:
    """Positions (P, L) of the L tokens that are left of a prompt of U tokens.

    Args:
        numbering: see the module.
        unpruned: (P, U) int64, the positions of the unpruned prompt on each of P axes.
        sources: (L,) int64, the index in the unpruned prompt of every token that is left, on the same device.
        images: of each image, the indices from its first visual token to its last in the unpruned prompt, ascending;
            an empty range changes nothing.
    """
    if numbering == "renumbered":
        count = torch.arange(len(sources), device=sources.device)
        return (count + unpruned[0, 0]).expand(len(unpruned), -1)
    kept = unpruned[:, sources]
    if numbering == "original":
        return kept
    shift = torch.zeros_like(sources)
    for image in filter(None, images):
        first, last = image[0], image[-1]
        before = unpruned[:, first - 1].max() if first else unpruned[0, 0] - 1
        shown = (sources >= first) & (sources <= last)
        largest = kept.masked_fill(~shown, torch.iinfo(kept.dtype).min).max().maximum(before)
        text = unpruned[0, min(last + 1, unpruned.shape[1] - 1)]
        shift = shift + (sources > last) * (text - largest - 1)
    return kept - shift
