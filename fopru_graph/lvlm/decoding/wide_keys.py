"""Decoding on a CPU in bfloat16 with keys and values in float32, where attention is faster so.

For one query torch multiplies bfloat16 matrices in MKL, which takes 4 to 10 times as long as float32 where it does not
use the processor's instructions for them (on AMD's, and on those that have none). Whether that is so depends on library
and processor, and neither tells, so it is measured. Such caches take twice the memory. float16 stays as it is: there
the ratio is near 2, and from one process to the next noise would choose how answers round.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from fopru_graph.lvlm.families.capture_qk import attending_by
from fopru_graph.lvlm.families.family import Family

_NAME = "fopru_graph_wide_keys"
_KEYS = 512  # of the probe
_MARGIN = 2  # bfloat16 takes less than float32 or at least 4 times as long: noise does not decide


def keys_type(family: Family) -> torch.dtype:
    """The type in which keys and values are held for decoding: float32 where that is faster, else the model's."""
    config, dtype = family.language_model.config, family.dtype
    if dtype != torch.bfloat16 or family.device.type != "cpu" or config._attn_implementation != "sdpa":
        return dtype
    attention = family.layers[0].self_attn
    heads = config.num_attention_heads
    groups = heads // attention.num_key_value_groups
    return torch.float32 if float32_is_faster(heads, groups, attention.head_dim) else dtype


@functools.cache
def float32_is_faster(heads: int, groups: int, size: int) -> bool:
    """Whether attention for one query is at least twice as fast in float32 as in bfloat16: a few ms, once."""
    kinds = (torch.bfloat16, torch.float32)
    times: dict[torch.dtype, list[float]] = {kind: [] for kind in kinds}
    queries = {kind: torch.ones(1, heads, 1, size, dtype=kind) for kind in kinds}
    keys = {kind: torch.ones(1, groups, _KEYS, size, dtype=kind) for kind in kinds}
    for kind in 5 * kinds:
        start = time.perf_counter()
        scaled_dot_product_attention(queries[kind], keys[kind], keys[kind], enable_gqa=groups != heads)
        times[kind].append(time.perf_counter() - start)
    return _MARGIN * min(times[torch.float32]) < min(times[torch.bfloat16])


def wide_keys(modules: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """Attention ``modules`` that run sdpa take keys and values of a wider type than their queries, inside the block.

    Attention is then computed in the wider type.
    """
    return attending_by(_NAME, modules)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(key.dtype)
    result, _ = sdpa(module, query.to(key.dtype), key, value, attention_mask, **options)
    return result.to(query.dtype), None


AttentionInterface.register(_NAME, _attention)
