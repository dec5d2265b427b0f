"""The last decoder layer of a prefill, for the last position only: of all others it needs keys and values, no more.

The layer's own forward runs twice, so that nothing of a model is written anew here: with all positions until its cache
is given their keys and values, then with the last position, whose query sees them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fopru_graph.lvlm.decoding.runner import KeyValues


class _Known(Exception):
    """Ends a layer's forward: its keys and values are known."""


class _Cache:
    """Takes a layer's keys and values over once, which ends its forward; after that it returns them."""

    def __init__(self, update: Callable[..., KeyValues]) -> None:
        self._update = update
        self._filled: KeyValues | None = None

    def update(self, *args: Any, **options: Any) -> KeyValues:
        """What the layer calls."""
        if self._filled is None:
            self._filled = self._update(*args, **options)
            raise _Known
        return self._filled


def last_position(
    run: Callable[..., torch.Tensor], hidden: torch.Tensor, rotary: Mapping[str, Any], cache: Any, mask: Any
) -> torch.Tensor:
    """What `segments.Segment.run`, of one layer, gives for the last position: (B, 1, E).

    Keys and values in the cache are bit for bit those of a whole run. Hidden states nearly: products of one row round
    in another way than those of many.

    Args:
        run: `segments.Segment.run` of the layer.
        hidden: as ``run`` takes it, like ``rotary`` and ``cache``.
        mask: as ``run`` takes it, for the last position.
    """
    known = _Cache(cache.update)
    with contextlib.suppress(_Known):
        run(hidden, rotary, known, mask)
    last = {kind: tuple(part[..., -1:, :] for part in parts) for kind, parts in rotary.items()}
    return run(hidden[:, -1:], last, known, mask)
