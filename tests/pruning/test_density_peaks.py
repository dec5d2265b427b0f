"""Density-peak clustering against loops."""

from __future__ import annotations

import math

import pytest
import torch

from fopru_graph.pruning.density_peaks import density_peaks


def by_hand(features, clusters, neighbours=5):
    rows = features.double().tolist()
    count = len(rows)
    apart = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x) for y in rows] for x in rows]
    sparsity = []
    for i in range(count):
        near = sorted(apart[i][j] for j in range(count) if j != i)[:neighbours]
        sparsity.append(sum(near) / max(1, len(near)))
    order = sorted(range(count), key=lambda i: (sparsity[i], i))
    peaks = {}
    for place, i in enumerate(order):
        delta = max(apart[i]) if place == 0 else min(apart[i][j] for j in order[:place])
        peaks[i] = (math.log(delta) if delta > 0 else -math.inf) - sparsity[i]
    centres = sorted(range(count), key=lambda i: (-peaks[i], i))[:clusters]
    cluster = [min(range(clusters), key=lambda c: (apart[i][centres[c]], c)) for i in range(count)]
    for number, centre in enumerate(centres):
        cluster[centre] = number
    return centres, cluster


@pytest.mark.parametrize(("count", "clusters"), [(1, 1), (2, 1), (2, 2), (4, 2), (30, 1), (30, 4), (30, 30)])
def test_it_is_its_rule(count, clusters):
    for seed in range(4):
        features = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
        centres, cluster = density_peaks(features, clusters)
        assert (centres.tolist(), cluster.tolist()) == by_hand(features, clusters)


def test_clear_clusters_are_found_and_duplicates_are_no_second_centre():
    features = torch.cat([torch.full((6, 4), value) for value in (0.0, 10.0, -10.0)])
    centres, cluster = density_peaks(features, 3)
    assert sorted(centres.tolist()) == [0, 6, 12]
    assert cluster.view(3, 6).eq(cluster.view(3, 6)[:, :1]).all() and len(cluster.unique()) == 3


def test_two_tokens_are_equally_dense_so_that_the_first_is_the_centre():
    for seed in range(50):
        features = torch.randn(2, 67, generator=torch.Generator().manual_seed(seed))
        assert density_peaks(features, 1)[0].tolist() == [0]


def test_large_states_do_not_all_have_density_zero():
    features = 1e3 * torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(density_peaks(features, 3)[0], torch.tensor(by_hand(features, 3)[0]))
