"""EVS and VidCom² on every family that takes videos: padded batches, budgets of whole videos, the first frame first."""

from __future__ import annotations

import pytest

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.nodes.frame_budget import FrameBudget
from fopru_graph.nodes.frame_change import FrameChange
from fopru_graph.nodes.frame_uniqueness import FrameUniqueness
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.zoo import ZOO

FAMILIES = ["internvl", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"]
PROMPTS = ["what?", "a longer question about it"]


def evs(features, ratio):
    return RankPrune()(significance=FrameChange()(features=features), ratio=ratio, over="image")


def vidcom2(features, ratio):
    budget = FrameBudget()(features=features, ratio=ratio)
    return RankPrune()(significance=FrameUniqueness()(features=features), budget=budget)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return ZOO[request.param].build("sdpa")


def film(seed, frames):
    return Video(tuple(tiny.image(seed + i, 112, 112).picture for i in range(frames)), f"film {seed}")


def tokens_of(family, videos, method, ratio):
    features = family.encode(videos)
    return family.project(features, Reorder()(selection=method(features, ratio)))


@pytest.mark.parametrize("method", [evs, vidcom2])
def test_a_padded_batch_of_two_videos_is_its_videos_alone(family, method):
    videos = [film(0, 6), film(9, 4)]
    batch = tokens_of(family, videos, method, 0.4)
    answer = generate(family, batch, PROMPTS, max_new_tokens=3)
    for number, (video, prompt) in enumerate(zip(videos, PROMPTS, strict=True)):
        alone = tokens_of(family, [video], method, 0.4)
        assert alone.counts[0] == batch.counts[number] == int(alone.encoded[0] * 0.4)
        assert answer.token_ids[number] == generate(family, alone, [prompt], max_new_tokens=3).token_ids[0]


def test_evs_spends_a_frame_s_budget_on_the_first_frame_and_more_on_changes(family):
    still = Video((*[tiny.image(0, 112, 112).picture] * 6, *[tiny.image(5, 112, 112).picture] * 2), "still, then a cut")
    features = family.encode([still])
    frames, tokens = len(features.tiles), features.counts[0]
    for kept, where in ((1, {0}), (2, {0, frames * 3 // 4})):
        selection = evs(features, kept / frames)
        counts = [len(indices) for indices in selection.indices]
        assert counts == [tokens if frame in where else 0 for frame in range(frames)]
