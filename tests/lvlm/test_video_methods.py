"""EVS on every family that takes videos: the first frame first, then what changes."""

from __future__ import annotations

import pytest

from fopru_graph.nodes.frame_change import FrameChange
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.zoo import ZOO

FAMILIES = ["internvl", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return ZOO[request.param].build("sdpa")


def test_evs_spends_a_frame_s_budget_on_the_first_frame_and_more_on_changes(family):
    still = Video((*[tiny.image(0, 112, 112).picture] * 6, *[tiny.image(5, 112, 112).picture] * 2), "still, then a cut")
    features = family.encode([still])
    frames, tokens = len(features.tiles), features.counts[0]
    for kept, where in ((1, {0}), (2, {0, frames * 3 // 4})):
        scores = FrameChange()(features=features)
        selection = RankPrune()(significance=scores, ratio=kept / frames, over="image")
        counts = [len(indices) for indices in selection.indices]
        assert counts == [tokens if frame in where else 0 for frame in range(frames)]
