"""Projecting all tokens first changes nothing but the order of the work."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.nodes.project_all import ProjectAll
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import ModelHandle
from tests import tiny


@pytest.mark.parametrize("count", [1, 2])
def test_project_takes_tokens_that_are_projected_already(row, family, count):
    features = family.encode([tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(count)])
    projected = ProjectAll()(model=ModelHandle("tiny", family), features=features)
    width = family.model.get_input_embeddings().embedding_dim
    assert projected.counts == features.counts
    assert all(tile.features.shape[1] == width for tile in projected.tiles)
    selection = RankPrune()(significance=Significance()(features=features), ratio=0.5)
    for chosen in (None, selection):
        first, last = family.project(projected, chosen), family.project(features, chosen)
        for ours, theirs in zip(first.embeddings, last.embeddings, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
        assert all(map(torch.equal, first.origin, last.origin))
        assert first.counts == last.counts and first.placeholders == last.placeholders
