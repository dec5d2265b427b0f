"""How many tokens a ratio or an absolute count keeps: the one rounding rule that every method shares."""

from __future__ import annotations

import math

from fopru_graph.errors import UserError

# 0.29 · 100 is 28.999… in binary; a hair above the product keeps floor() at what the user wrote.
_SLACK = 1e-6


def kept_count(available: int, ratio: float | None = None, tokens: int | None = None) -> int:
    """Number kept of ``available`` tokens (or rows): ⌊available · ratio⌋, or ``tokens``; at least 1, at most
    ``available``.

    The floor is that of Algorithm 1's slice ``[: N × r%]``. ``tokens`` wins over ``ratio``; 0 available stay 0.

    Raises:
        UserError: neither is given, ``ratio`` is outside (0, 1] or ``tokens`` is below 1.
    """
    if tokens is None and ratio is None:
        raise UserError("no budget: neither ratio nor tokens is set", "set ratio (share kept) or tokens (number kept)")
    if tokens is not None:
        if tokens < 1:
            raise UserError(f"tokens must be at least 1, not {tokens}", "it is the number of visual tokens to keep")
        wanted = tokens
    else:
        assert ratio is not None
        if not 0 < ratio <= 1:
            raise UserError(f"ratio must be in (0, 1], not {ratio}", "it is the share of visual tokens to keep")
        wanted = math.floor(available * ratio + _SLACK)
    return min(available, max(1, wanted))
