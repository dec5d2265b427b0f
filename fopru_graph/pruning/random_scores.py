"""Random scores, the baseline that every scorer has to beat: the same in every run, in any order, on any machine."""

from __future__ import annotations

import hashlib

import torch


def random_scores(count: int, seed: int, number: int, pixels: torch.Tensor) -> torch.Tensor:
    """Uniform scores (count,) float32 in [0, 1) on the CPU, drawn for one tile.

    Args:
        count: visual tokens of the tile.
        seed: of the whole experiment.
        number: the tile's, among those of its image.
        pixels: (H, W, 3) uint8 on the CPU, the tile as the encoder saw it: other pictures have other scores, and a
            picture has the same ones whatever is encoded beside it.
    """
    drawn = hashlib.sha256(f"{seed} {number} {tuple(pixels.shape)} ".encode() + pixels.contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(drawn.digest()[:8], "big") >> 1)
    return torch.rand(count, generator=generator)
