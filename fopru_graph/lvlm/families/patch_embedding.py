"""Patch embeddings that are convolutions over patches already cut: one output a patch, which convolution kernels hate.

Qwen's towers get patches of just the kernel's size. Kernels for convolutions work along the rows of their output, and
rows of one element made the embedding as dear as several layers of the tower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn import functional as F

COLUMNS = 64  # patches side by side, at most: rows of 16 to 64 are the fastest on CPUs


@contextlib.contextmanager
def fast_patches(convolution: torch.nn.Conv3d) -> Iterator[None]:
    """Inside the ``with`` block ``convolution`` embeds cut patches quickly; afterwards it is as before.

    In float32 the values are those of the convolution, bit for bit. In half precision they are a matrix product's: both
    sum in float32 and round once, so they differ by the rounding of that sum.
    """
    # The weights are handed to it, so it also serves weights that accelerate brings in before and takes out after.
    convolution._conv_forward = embed_patches  # type: ignore[method-assign]
    try:
        yield
    finally:
        del convolution._conv_forward


def embed_patches(patches: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The convolution of each patch with a kernel of its size.

    Args:
        patches: (M, C, T, p, p).
        weight: (D, C, T, p, p).
        bias: (D,), or None.

    Returns:
        (M, D, 1, 1, 1).
    """
    if patches.dtype != torch.float32:
        return F.linear(patches.flatten(1), weight.flatten(1), bias)[..., None, None, None]
    size = tuple(weight.shape[2:])
    if patches.device.type != "cpu":
        return F.conv3d(patches, weight, bias, size)
    # Side by side, as pictures one patch high: the same convolution over longer rows.
    columns = max(count for count in range(1, COLUMNS + 1) if len(patches) % count == 0)
    pictures = patches.unflatten(0, (-1, columns)).permute(0, 2, 3, 4, 1, 5).flatten(4)  # (R, C, T, p, columns · p)
    embedded = F.conv3d(pictures, weight, bias, size)  # (R, D, 1, 1, columns)
    return embedded.permute(0, 4, 1, 2, 3).flatten(0, 1)[..., None].contiguous()
