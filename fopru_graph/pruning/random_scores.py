"""Random scores, the baseline that every scorer has to beat: the same in every run, in any order, on any machine."""

from __future__ import annotations

import hashlib

import torch


def random_scores(count: int, seed: int, number: int, pixels: torch.Tensor) -> torch.Tensor:
    """Uniform scores for one tile.

    Args:
        count: N, visual tokens of the tile.
        seed: seed of the whole experiment.
        number: which of its image's tiles this is, from 0.
        pixels: (H, W, 3) uint8 on the CPU, the tile as the encoder saw it. Different pictures get different scores, and
            a picture gets the same scores whatever is encoded beside it.

    Returns:
        (N,) float32 in [0, 1), on the CPU.
    """
    head = f"{seed} {number} {tuple(pixels.shape)} ".encode()
    digest = hashlib.sha256(head + pixels.contiguous().numpy().tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(count, generator=generator)
