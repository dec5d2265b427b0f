"""A stand-in for the flash-attn package, in plain torch on the CPU, where transformers looks for the real one."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import transformers.integrations.hub_kernels as hub_kernels
import transformers.modeling_flash_attention_utils as flash_utils
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

HUB_KERNEL = "kernels-community/flash-attn2"
NAMES = ("flash_attention_2", "flash_attention_3", HUB_KERNEL)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
) -> torch.Tensor:
    """Attention of q (B, Q, H, d) to k and v (B, T, G, d); the last query stands at the last key.

    A window (left, right) counts keys, whatever their positions; the right side of a causal one is 0.
    """
    groups = q.shape[2] // k.shape[2]
    query, key, value = (part.transpose(1, 2) for part in (q, k, v))
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    ahead = torch.arange(k.shape[1]) - (torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1])  # (Q, T)
    left, right = window_size
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if left >= 0:
        hidden |= ahead < -left
    if causal or right >= 0:
        hidden |= ahead > (0 if causal else right)
    logits = (query.float() @ key.float().transpose(-1, -2) * scale).masked_fill(hidden, -torch.inf)
    return (torch.softmax(logits, -1) @ value.float()).to(q.dtype).transpose(1, 2)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
) -> torch.Tensor:
    """The same for sequences laid end to end: q (ΣQ, H, d), k and v (ΣT, G, d), with their bounds."""
    assert cu_seqlens_q[-1] == len(q) and cu_seqlens_k[-1] == len(k)
    sizes = [bounds.diff().tolist() for bounds in (cu_seqlens_q, cu_seqlens_k, cu_seqlens_k)]
    parts = zip(*(part.split(lengths) for part, lengths in zip((q, k, v), sizes, strict=True)), strict=True)
    options: dict[str, Any] = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size}
    return torch.cat([flash_attn_func(*(part[None] for part in qkv), **options)[0] for qkv in parts])


def install(monkeypatch: Any) -> None:
    """Let models load with any of `NAMES`, as if their packages were there and the CPU were a GPU."""
    for name in ("flash_attn", "flash_attn_interface"):
        package = ModuleType(name)
        package.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
        package.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
        package.flash_attn_with_kvcache = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, package)
    padding = ModuleType("flash_attn.bert_padding")
    padding.pad_input, padding.unpad_input = flash_utils._pad_input, flash_utils._unpad_input  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(flash_utils, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(flash_utils, "is_flash_attn_3_available", lambda: True)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_import_error", lambda *_args, **_options: None)
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *_args, **_options: sys.modules["flash_attn"])
    # What transformers remembers of the package it found last, and of kernels of the hub.
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn"):
        monkeypatch.setattr(flash_utils, name, None)
    for name in ("_unpad_fn", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):
        monkeypatch.setattr(flash_utils, name, None)
    for functions in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        monkeypatch.setattr(type(functions), "_global_mapping", dict(type(functions)._global_mapping))
