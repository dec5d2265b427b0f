"""Random scores: uniform, and the same in every run."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.nodes.random_score import RandomScore
from fopru_graph.pruning.random_scores import random_scores
from tests import tiny


def test_random_scores_are_uniform_and_depend_on_all_they_are_drawn_from():
    pixels = torch.randint(0, 255, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = random_scores(4000, 0, 0, pixels)
    assert torch.equal(scores, random_scores(4000, 0, 0, pixels.clone())) and scores.dtype == torch.float32
    assert scores.min() >= 0 and scores.max() < 1
    assert abs(scores.mean() - 1 / 2) < 0.02 and abs(scores.var() - 1 / 12) < 0.005
    for other in ((1, 0, pixels), (0, 1, pixels), (0, 0, pixels + 1), (0, 0, pixels.view(4, 16, 3))):
        assert abs(torch.corrcoef(torch.stack([scores, random_scores(4000, *other)]))[0, 1]) < 0.1


def test_random_scores_are_the_same_on_every_machine():
    """The numbers themselves: from SHA-256 and torch's CPU generator, which keep their sequences."""
    scores = random_scores(3, 7, 0, torch.zeros(2, 2, 3, dtype=torch.uint8))
    assert scores.tolist() == pytest.approx([0.7275643, 0.4443613, 0.7599549])


def test_a_picture_has_its_scores_whatever_is_encoded_with_it():
    family = tiny.llava(anyres=True, seed=1)
    a, b = tiny.image(0, 64, 64), tiny.image(1, 90, 30)
    alone = RandomScore()(features=family.encode([a]), seed=3)
    among = RandomScore()(features=family.encode([b, a]), seed=3)
    again = RandomScore()(features=family.encode([a, a]), seed=3)
    count = len(alone.scores)
    assert all(torch.equal(x, y) for x, y in zip(alone.scores, among.scores[-count:], strict=True))
    assert all(torch.equal(x, y) for x, y in zip(alone.scores * 2, again.scores, strict=True))
    assert len({tuple(one.tolist()) for one in among.scores}) == len(among.scores)  # every tile its own
    assert not torch.equal(alone.scores[0], RandomScore()(features=family.encode([a]), seed=4).scores[0])
    assert alone.direction_names == ("random",) * count and alone.images == (0,) * count
