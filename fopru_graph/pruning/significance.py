"""FoPru's token significance (paper §4.2, Eq. 2–4)."""

from __future__ import annotations

from typing import Literal

import torch

from fopru_graph.errors import UserError

Direction = Literal["auto", "received", "given"]


def significance(
    given: torch.Tensor, received: torch.Tensor, direction: Direction = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sig of Eq. 4: of the two mean-attention vectors the one with the larger variance; a tie goes to ``received``.

    Softmax rows sum to one, so ``given`` is all but constant and ``received`` wins on real towers; the paper's ablation
    "w/o variance" is ``direction="given"``.

    Args:
        given: s₁ (N,), row means of the head-averaged attention map.
        received: s₂ (N,), column means.
        direction: ``auto`` compares variances in float32; the other two force a side.

    Returns:
        The scores (N,) float32, and a () bool: whether ``received`` was taken. Both stay on the device; nothing waits.

    Raises:
        UserError: ``direction`` is none of the three.
    """
    if direction not in ("auto", "received", "given"):
        raise UserError(f"direction {direction!r} is unknown", "choose auto, received or given")
    given, received = given.float(), received.float()
    if direction == "auto":
        won = given.var(correction=0) <= received.var(correction=0)
    else:
        won = torch.full((), direction == "received", device=given.device)
    return torch.where(won, received, given), won
