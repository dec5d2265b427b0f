"""NaN and infinity are found on the device and read together with a token, so that nothing waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError

HINT = "load the model with dtype: bfloat16 or float32; if it is, its weights or a scorer may be at fault"


class NotFinite(UserError):
    """What an answer follows from is NaN or infinite."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} hold NaN or infinity, so there is no answer", HINT)


def finite_rows(values: torch.Tensor) -> torch.Tensor:
    """(B,) bool: whether all of each row of ``values`` (B, V) is finite."""
    return values.sum(-1, dtype=torch.float32) * 0 == 0  # NaN and infinity come through both; few kernels, one pass


def of_samples(bad: Sequence[int], batch: int) -> str:
    """Which samples of a batch are meant: `` of prompt 2 of 3``; nothing for a single one."""
    return f" of prompt {', '.join(str(i + 1) for i in bad)} of {batch}" if batch > 1 else ""
