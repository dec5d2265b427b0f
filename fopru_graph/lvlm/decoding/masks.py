"""Attention masks: from the positions of queries and keys in the whole prompt, or cut out of a stock model's mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.kept import KeptPositions

HIDDEN = 1 << 40  # the position of keys that no query sees: behind every query


def sliding_windows(config: Any) -> list[int | None]:
    """The sliding window of every decoder layer; None where a layer sees the whole sequence."""
    window = None if config.model_type == "llama" else getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def check_flash_windows(windows: Sequence[int | None], cuts: Sequence[int], length: int) -> None:
    """Refuse cuts in a prompt of ``length`` tokens that the layers' sliding ``windows`` do not hold, for flash kernels.

    They hide no key from a layer that is cut, or ranks for a cut, by its place in the whole prompt.

    Raises:
        UserError: the prompt is longer than the window of such a layer.
    """
    affected = windows[cuts[0] - 1 :] if cuts else []
    shorter = [window for window in affected if window is not None and window < length]
    if shorter:
        raise UserError(
            f"a prompt of {length} tokens is longer than the model's sliding window of {min(shorter)}, "
            "in which flash kernels would count the tokens that in-LLM pruning keeps",
            "load the model with attention: sdpa",
        )


def key_positions(positions: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """``positions`` (B, M) of keys, such that no query sees padding and fillers, where ``real`` (B, M) is False."""
    return positions.masked_fill(~real, HIDDEN)


def query_positions(positions: torch.Tensor, real: torch.Tensor, last: int | torch.Tensor) -> torch.Tensor:
    """``positions`` (B, M) of queries; padding and fillers look from ``last``: a query that sees no key gives NaN."""
    return torch.where(real, positions, last)


def visible_keys(
    queries: torch.Tensor, keys: torch.Tensor, window: int | None = None, until: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, 1, Q, T) bool: which keys at positions ``keys`` (B, T) each query at positions ``queries`` (B, Q) sees.

    ``until`` (B, Q) are the positions up to which the queries see, if not their own; windows reach back from their own.
    """
    query, key = queries[:, None, :, None], keys[:, None, None, :]
    visible = key <= (query if until is None else until[:, None, :, None])
    return visible if window is None else visible & (key > query - window)


def kernel_mask(
    queries: torch.Tensor,
    keys: torch.Tensor,
    config: Any,
    dtype: torch.dtype,
    window: int | None,
    until: torch.Tensor | None = None,
) -> torch.Tensor:
    """`visible_keys` in the form that the model's attention kernel takes: bool for sdpa, additive floats for eager."""
    if config._attn_implementation != "eager":
        return visible_keys(queries, keys, window, until)
    return additive_mask(queries, keys, dtype, window, until)


def additive_mask(
    queries: torch.Tensor,
    keys: torch.Tensor,
    dtype: torch.dtype,
    window: int | None = None,
    until: torch.Tensor | None = None,
) -> torch.Tensor:
    """`visible_keys` as floats that are added to the logits: 0, or the lowest number where a key is hidden.

    Kernels on CUDA take these as they are, where torch would make such floats of a bool mask in every layer. Finite, as
    kernels of cuDNN have made NaN of infinity.
    """
    visible = visible_keys(queries, keys, window, until)
    return torch.zeros(visible.shape, dtype=dtype, device=keys.device).masked_fill(~visible, torch.finfo(dtype).min)


def shortened_mask(
    mask: Any, kept: KeptPositions, length: int, generated: int, flash: bool, window: int | None
) -> torch.Tensor | None:
    """The mask that the stock model built for the whole sequence, for the kept positions and the generated tokens.

    Args:
        mask: None, (B, L + n) as flash kernels take it, or (B or 1, 1, Q, L + n), bool or additive.
        kept: the M positions of the prompt that the layer sees.
        length: tokens L of the whole prompt.
        generated: tokens n that followed the prompt, the current one included; 0 in the prefill.
        flash: the kernels take two-dimensional masks only and are causal by themselves.
        window: the layer's sliding window, which other kernels have in their mask. Flash kernels count the keys they
            get; of a shortened prompt those reach back further than the window.

    Returns:
        None, (B, M + n), or (B, 1, M in the prefill and 1 later, M + n).

    Raises:
        UserError: the mask is no tensor (flex attention).
    """
    leaving = flash and window is not None and generated > 0 and window < length + generated
    if mask is None and not kept.ragged and not leaving:
        return None
    if not isinstance(mask, torch.Tensor | None):
        kind = type(mask).__name__
        raise UserError(f"in-LLM pruning cannot cut a {kind}", "load the model with attention: sdpa or eager")
    positions, batch = kept.positions, len(kept.positions)
    new = torch.arange(length, length + generated, device=positions.device).expand(batch, -1)
    columns = torch.cat([positions, new], 1)
    visible = torch.cat([kept.real, kept.real.new_ones(batch, generated)], 1)
    if leaving:
        visible = visible & (columns >= length + generated - window)
    if mask is None:  # no padding, but the samples keep different numbers: the fillers must be hidden
        if flash:
            return visible.long()
        queries = new[:, -1:] if generated else query_positions(positions, visible, length - 1)
        return visible_keys(queries, key_positions(columns, visible))
    mask = mask.to(positions.device)
    if mask.dim() == 2:
        return mask.gather(1, columns) * visible.to(mask.dtype)
    mask = mask.expand(batch, -1, -1, -1)
    if not generated:
        mask = torch.take_along_dim(mask, positions[:, None, :, None], 2)
    mask = torch.take_along_dim(mask, columns[:, None, None, :], 3)
    visible = visible[:, None, None, :]
    return mask & visible if mask.dtype == torch.bool else mask.masked_fill(~visible, torch.finfo(mask.dtype).min)
