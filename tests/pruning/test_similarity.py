"""Cosines in blocks, and averaging into the most similar token, against slow loops."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.pruning import similarity
from fopru_graph.pruning.depth import layer_at
from fopru_graph.pruning.similarity import average_into_nearest, cosine_blocks, most_similar, nearest


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else 0.0


@pytest.mark.parametrize("step", [1, 3, 100])
def test_blocks_are_the_whole_matrix_whatever_their_size(step, monkeypatch):
    monkeypatch.setattr(similarity, "queries_at_a_time", lambda *_: step)
    rows, columns = torch.randn(2, 7, 5), torch.randn(2, 4, 5)
    rows[0, 2] = 0
    whole = torch.cat([block for _, block in cosine_blocks(rows, columns)], -2)
    for i, j, k in [(0, 0, 0), (0, 2, 1), (1, 6, 3), (1, 3, 2)]:
        assert float(whole[i, j, k]) == pytest.approx(cosine(rows[i, j], columns[i, k]), abs=1e-6)
    values, indices = nearest(rows, columns)
    assert torch.equal(values, whole.max(-1).values) and torch.equal(indices, whole.argmax(-1))


def test_the_lower_of_equals_comes_first_and_banned_pairs_last():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    columns = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    assert nearest(rows, columns)[1].tolist() == [0, 2]
    banned = torch.tensor([[True, False, False], [True, True, True]])
    for most in (1, 2, 5):
        values, indices = most_similar(rows, columns, most, banned)
        assert indices.tolist() == [[1, 2, 0][:most], [0, 1, 2][:most]]
        assert values.tolist() == [[1.0, 0.0, -2.0][:most], [-2.0] * min(3, most)]
    assert most_similar(rows[:0], columns, 2)[1].shape == (0, 2)


def test_half_precision_is_compared_in_float32():
    near = torch.tensor([[1.0, 0.0], [1.0, 0.02], [1.0, 0.01]])
    assert nearest(near[:1].bfloat16(), near[1:].bfloat16())[1].tolist() == [1]


@pytest.mark.parametrize("kept", [[3], [5, 0], [0, 1, 2, 3, 4, 5]])
def test_dropped_tokens_are_averaged_into_the_most_similar_kept_one(kept):
    features = torch.randn(6, 4)
    features[2] = features[1]  # a duplicate
    weights = average_into_nearest(features, torch.tensor(kept))
    members: list[list[int]] = [[i] for i in kept]
    for token in set(range(6)) - set(kept):
        members[max(range(len(kept)), key=lambda k: cosine(features[token], features[kept[k]]))].append(token)
    expected = torch.stack([features[group].mean(0) for group in members])
    assert torch.allclose(weights @ features, expected, atol=1e-6)


def test_layers_are_numbers_or_shares_of_the_depth():
    assert [layer_at(share, 32) for share in (0.25, 0.5, 0.75, 0.999, 0.001)] == [8, 16, 24, 31, 0]
    assert [layer_at(layer, 24) for layer in (8, -1, 1 / 3, 22 / 24)] == [8, -1, 8, 22]
    assert layer_at(0.25, 6) == 2  # 1.5 is rounded up
    for wrong in (0.0, 1.0, 8.0, -0.5):
        with pytest.raises(UserError, match="no share of the depth"):
            layer_at(wrong, 32)
