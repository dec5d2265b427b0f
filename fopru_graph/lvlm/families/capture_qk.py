"""Capture what one attention module attends with while every layer keeps its fast kernel.

Only the captured module gets a copy of its config, which names our attention function. That function hands its inputs
to a callback and then calls the kernel that the model uses. Masks are built from the model's own config.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface


class Attention(NamedTuple):
    """What an attention module attends with, after rotary embedding and cache update.

    ``query`` is (B, H, L, d), ``key`` and ``value`` are (B, G, L, d), ``scale`` is the factor on the logits, and
    ``mask`` what the kernel gets.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    mask: Any


CaptureCallback = Callable[[Attention], None]

_NAME = "fopru_graph_capture"
_captured: dict[int, tuple[Any, CaptureCallback]] = {}  # by the module's id: its config and the callback


def _capturing_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,  # some modules pass it by this name
    **options: Any,
) -> Any:
    config, callback = _captured[id(module)]
    scale = options.get("scaling")
    callback(Attention(query, key, value, query.shape[-1] ** -0.5 if scale is None else scale, attention_mask))
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
    capturing, module.config = module.config, config  # flash kernels look up in it what they are called
    try:
        return attend(module, query, key, value, attention_mask, **options)
    finally:
        module.config = capturing


AttentionInterface.register(_NAME, _capturing_attention)


@contextlib.contextmanager
def capture_qk(module: torch.nn.Module, callback: CaptureCallback) -> Iterator[None]:
    """Call ``callback`` with the `Attention` of every forward of ``module`` inside the ``with`` block.

    The module is as before when the block ends, also after an exception. Example::

        calls = []
        with capture_qk(layer.self_attn, calls.append):
            model(**inputs)

    Raises:
        RuntimeError: the module is captured already.
    """
    if id(module) in _captured:
        raise RuntimeError(f"{type(module).__name__} is tapped already; a model serves one run at a time")
    _captured[id(module)] = (module.config, callback)
    try:
        with attending_by(_NAME, [module]):
            yield
    finally:
        del _captured[id(module)]


@contextlib.contextmanager
def attending_by(name: str, modules: Sequence[Any]) -> Iterator[None]:
    """Inside the block attention ``modules`` call the registered function ``name``, by configs of their own."""
    configs = [module.config for module in modules]
    try:
        for module, config in zip(modules, configs, strict=True):
            module.config = copy.copy(config)
            module.config._attn_implementation = name
        yield
    finally:
        for module, config in zip(modules, configs, strict=True):
            module.config = config
