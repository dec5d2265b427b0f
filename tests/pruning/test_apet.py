"""ApET's reconstruction error and its merge, and CDPruner's relevance, against loops and least squares."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.nodes.average_dropped import AverageDropped
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reconstruction_score import ReconstructionScore
from fopru_graph.nodes.text_relevance import TextRelevance
from fopru_graph.pruning.reconstruction import reconstruction_error
from fopru_graph.pruning.relevance import text_relevance
from fopru_graph.values import PromptEmbeddings, Selection
from tests.pruning.test_greedy import tiles_of


def slow_basis(features, count):
    lengths = [float(token.norm()) for token in features]
    picks = [lengths.index(max(lengths))]
    while len(picks) < count:
        near = [min(float((token - features[pick]).norm()) for pick in picks) for token in features]
        picks.append(max((i for i in range(len(features)) if i not in picks), key=lambda i: (near[i], -i)))
    return picks


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_error_is_that_of_least_squares(count):
    features = torch.randn(2, 40, 16)
    errors = reconstruction_error(features, count)
    for tile, error in zip(features.double(), errors, strict=True):
        basis = tile[slow_basis(tile, count)].T
        rest = tile.T - basis @ torch.linalg.lstsq(basis, tile.T).solution
        assert torch.allclose(error.double(), rest.norm(dim=0), atol=2e-3)
        assert error[slow_basis(tile, count)].tolist() == [0.0] * count


def test_tokens_that_the_basis_spans_have_no_error():
    kinds = torch.randn(3, 8)
    errors = reconstruction_error(kinds[[0, 1, 2, 0, 1, 2, 2]][None], 5)
    assert errors.max() < 1e-2
    assert reconstruction_error(torch.zeros(1, 4, 8)).tolist() == [[0.0] * 4]
    assert reconstruction_error(torch.randn(1, 1, 8)).tolist() == [[0.0]]
    few = torch.randn(1, 6, 8)
    assert reconstruction_error(few).tolist() == [[0.0] * 6]  # all are basis tokens
    assert torch.equal(reconstruction_error(few.bfloat16(), 2), reconstruction_error(few.bfloat16().float(), 2))


def test_apet_is_its_slow_reference():
    """Two tiles of two sizes: the worst reconstructed stay, each the mean of itself and those nearest to it."""
    made = [torch.randn(20, 12), torch.randn(30, 12)]
    features = tiles_of(*made)
    selection = RankPrune()(significance=ReconstructionScore()(features=features, basis=4), ratio=0.2)
    merged = AverageDropped()(features=features, selection=selection)
    assert merged.selection.counts == features.counts and bool(merged.selection.scores_finite)
    for tile, new, kept in zip(made, merged.features.tiles, selection.indices, strict=True):
        basis = tile[slow_basis(tile, 4)].T
        rest = (tile.T - basis @ torch.linalg.lstsq(basis, tile.T).solution).norm(dim=0)
        assert kept.tolist() == rest.argsort(descending=True)[: len(tile) // 5].tolist()
        members = {index: [index] for index in kept.tolist()}
        for token in set(range(len(tile))) - set(members):
            cosine = [float(torch.cosine_similarity(tile[token], tile[i], dim=0)) for i in kept.tolist()]
            members[kept.tolist()[cosine.index(max(cosine))]].append(token)
        for index, group in members.items():
            assert torch.allclose(new.features[index], tile[group].mean(0), atol=1e-5)


def test_nothing_is_averaged_where_nothing_or_everything_is_dropped():
    features = tiles_of(torch.randn(4, 3), torch.randn(2, 3))
    selection = Selection((torch.arange(4), torch.arange(0)), features.counts)
    merged = AverageDropped()(features=features, selection=selection)
    for old, new in zip(features.tiles, merged.features.tiles, strict=True):
        assert torch.equal(old.features, new.features)
    with pytest.raises(UserError, match="different tokens"):
        AverageDropped()(features=features, selection=Selection(selection.indices, (4, 3)))


def question(*embeddings):
    return PromptEmbeddings(("",) * len(embeddings), (), embeddings, tuple(range(len(embeddings))))


def test_relevance_is_the_scaled_cosine_to_the_mean_of_the_question_over_an_image():
    made = [torch.randn(n, 6) for n in (5, 3, 4)]
    words = torch.randn(2, 6), torch.randn(3, 6)
    scores = TextRelevance()(features=tiles_of(*made, images=[0, 0, 1]), question=question(*words))
    for tiles, text in (((0, 1), words[0]), ((2,), words[1])):
        mean = text.sum(0) / len(text)
        raw = [float(torch.cosine_similarity(token, mean, dim=0)) for tile in tiles for token in made[tile]]
        expected = [(value - min(raw)) / (max(raw) - min(raw)) for value in raw]
        assert torch.cat([scores.scores[tile] for tile in tiles]).tolist() == pytest.approx(expected, abs=1e-5)


def test_constant_relevance_is_one():
    same = torch.randn(1, 6)
    for token in (same, torch.zeros(1, 6)):
        assert text_relevance([token.expand(4, 6), token.expand(2, 6)], same)[0].tolist() == [1.0] * 4
    assert text_relevance([same], torch.zeros(2, 6))[0].tolist() == [1.0]
