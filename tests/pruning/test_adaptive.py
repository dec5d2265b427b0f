"""The budget that follows the scores, and scores that follow nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fopru_graph.errors import UserError
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.random_score import RandomScore
from fopru_graph.pruning.cumulative import mass_select
from fopru_graph.pruning.random_scores import random_scores
from fopru_graph.values import Significance
from tests import tiny


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 100))
def test_mass_equals_adding_up_by_hand(values, percent):
    """Integer scores, so that sums which hit the share exactly do occur."""
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    wanted, kept, held = Fraction(percent * sum(values), 100), [], 0
    for i in ranked:
        kept.append(i)
        held += values[i]
        if held >= wanted:
            break
    assert mass_select(torch.tensor(values).float(), percent / 100).tolist() == kept


def test_no_smaller_set_holds_the_mass():
    scores = torch.rand(200, generator=torch.Generator().manual_seed(0)) ** 4
    for mass in (0.1, 0.5, 0.8, 0.99, 1.0):
        kept = mass_select(scores, mass)
        assert scores[kept].double().sum() >= mass * scores.double().sum() * (1 - 1e-8)
        assert scores[kept[:-1]].double().sum() < mass * scores.double().sum()


def test_extremes_of_mass():
    assert mass_select(torch.zeros(5), 0.8).tolist() == [0]
    assert mass_select(torch.tensor([2.0]), 1.0).tolist() == [0]
    assert mass_select(torch.tensor([0.0, 3, 0, 1]), 1.0).tolist() == [1, 3]  # what holds nothing is not needed
    assert mass_select(torch.tensor([1.0, 1, 1, 1]).half(), 0.75).tolist() == [0, 1, 2]
    assert mass_select(torch.tensor([7.0] + [1.0] * 93), 0.07).tolist() == [0]  # 0.07 · 100 is 7.000…1 in binary
    for mass in (0.0, -0.1, 1.01):
        with pytest.raises(UserError, match="mass"):
            mass_select(torch.ones(3), mass)
    with pytest.raises(UserError, match="negative"):
        mass_select(torch.tensor([1.0, -1.0]), 0.5)


def test_the_number_follows_each_tile():
    peaked, flat = torch.tensor([8.0, 1, 1, 0]), torch.ones(4)
    found = MassPrune()(significance=Significance((peaked, flat), ((2, 2),) * 2, ("x",) * 2), mass=0.8)
    assert [one.tolist() for one in found.indices] == [[0], [0, 1, 2, 3]] and found.counts == (4, 4)


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
