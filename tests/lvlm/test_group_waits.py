"""On a simulated accelerator: quotas of chunks and windows wait for nothing, budgets of tiles once for all pictures."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.pruning.groups import window_select
from fopru_graph.pruning.hired import hired_budgets
from fopru_graph.pruning.holov import holov_select
from fopru_graph.values import Significance
from tests.lvlm.accelerator import DeviceTensor, on_host, simulated

DRAWN = torch.Generator().manual_seed(1)
FEATURES, SCORES = torch.randn(60, 8, generator=DRAWN), torch.rand(60, generator=DRAWN)


def test_quotas_that_follow_from_scores_wait_for_nothing():
    expected = holov_select(FEATURES, SCORES, 20), window_select(SCORES, (6, 10), 4, 40)
    with simulated() as device:
        scores = DeviceTensor(SCORES)
        found = holov_select(DeviceTensor(FEATURES), scores, 20), window_select(scores, (6, 10), 4, 40)
    assert device.waits == []
    assert all(torch.equal(on_host(one), other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("cut", "waits"), [(True, 1), (False, 0)])
def test_budgets_of_tiles_wait_once_for_all_pictures(cut, waits):
    places = [None, *((row, column) if cut else None for row in range(2) for column in range(2))]
    rest = ((6, 10),) * 10, ("cls",) * 10, (0,) * 5 + (1,) * 5, tuple(places * 2)
    scores = [SCORES.roll(shift) for shift in range(10)]
    expected = hired_budgets(Significance(tuple(scores), *rest), 0.3)
    with simulated() as device:
        found = hired_budgets(Significance(tuple(map(DeviceTensor, scores)), *rest), 0.3)
    assert found == expected and len(device.waits) == waits
