"""Read the queries and keys of one attention module while every layer keeps its own fast kernel.

Only the tapped module gets a copy of its config that names our attention function; that function hands q and k to a
callback and then calls the kernel the model really uses. Masks are built from the model's own config and stay right.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_NAME = "fopru_graph_tap"
_taps: dict[int, tuple[str, Callable[[torch.Tensor, torch.Tensor, float, Any], None]]] = {}

TapCallback = Callable[[torch.Tensor, torch.Tensor, float, Any], None]


def _tapped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,  # some modules pass it by this name
    **options: Any,
) -> Any:
    kernel, callback = _taps[id(module)]
    scale = options.get("scaling")
    callback(query, key, query.shape[-1] ** -0.5 if scale is None else scale, attention_mask)
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager)
    return attend(module, query, key, value, attention_mask, **options)


AttentionInterface.register(_NAME, _tapped_attention)


@contextlib.contextmanager
def tap_attention(module: torch.nn.Module, callback: TapCallback) -> Iterator[None]:
    """Call ``callback(query, key, scale, mask)`` in every forward of ``module`` inside the ``with`` block.

    ``query`` is (B, H, L, d) and ``key`` (B, G, L, d), after rotary embedding and cache update. The module is as before
    when the block ends, whatever happens in it. A module is tapped once at a time.

    Raises:
        RuntimeError: the module is tapped already.
    """
    if id(module) in _taps:
        raise RuntimeError(f"{type(module).__name__} is tapped already; a model serves one run at a time")
    config = module.config
    tapped = copy.copy(config)
    tapped._attn_implementation = _NAME
    _taps[id(module)] = (config._attn_implementation, callback)
    module.config = tapped
    try:
        yield
    finally:
        module.config = config
        del _taps[id(module)]
