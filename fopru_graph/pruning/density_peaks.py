"""Density-peak clustering: centres are dense and far from what is denser (Rodriguez and Laio 2014, by neighbours)."""

from __future__ import annotations

import torch


def density_peaks(features: torch.Tensor, clusters: int, neighbours: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster tokens around the peaks of their density; deterministic, and without waiting for the device.

    With d² the mean squared difference of two tokens: a token's density is ρ = exp(−mean d² to its nearest neighbours);
    δ² is the least d² to any denser token, for the densest the largest d² of all its own. Centres have the highest
    ρ · δ², and every token joins its nearest centre. Of tokens equally dense the lower index counts as denser, of equal
    distances and peaks the lower index wins.

    Args:
        features: (N, C), N at least 1; N² distances are formed.
        clusters: K, between 1 and N.
        neighbours: how many, itself left out; all others where there are fewer.

    Returns:
        ``centres`` (K,) int64, the highest peak first, and ``cluster`` (N,) int64, the number of each token's centre. A
        centre is in its own cluster.
    """
    features = features.float() / features.shape[1] ** 0.5
    gram = features @ features.mT
    square = gram.diagonal()
    # A product need not be symmetric to the last digit, but two tokens alone are equally dense.
    distance = (square[:, None] + square - (gram + gram.mT)).clamp(min=0)
    near = distance.sort(1).values[:, 1 : neighbours + 1]  # itself is at distance 0
    sparsity = near.sum(1) / max(1, near.shape[1])  # −log ρ: ρ itself is 0 where distances are large
    rank = sparsity.argsort(stable=True).argsort()
    apart = distance.masked_fill(rank[:, None] <= rank, torch.inf).amin(1).minimum(distance.amax(1))
    centres = (apart.log() - sparsity).argsort(descending=True, stable=True)[:clusters]
    cluster = distance[:, centres].argmin(1).index_copy(0, centres, torch.arange(clusters, device=features.device))
    return centres, cluster
