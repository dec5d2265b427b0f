"""EVS and VidCom² against loops written from their rules."""

from __future__ import annotations

import math

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.nodes.frame_budget import FrameBudget
from fopru_graph.nodes.frame_change import FrameChange
from fopru_graph.nodes.frame_uniqueness import FrameUniqueness
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.pruning.frames import frame_budgets
from fopru_graph.values import Tile, TileAttention, VisionFeatures


def features_of(*videos, film=True):
    """Features of videos (T, N, D)."""
    nothing = torch.empty(0)
    tiles = [
        Tile(frame, (1, len(frame)), number, TileAttention(nothing, nothing, 1.0, 0))
        for number, video in enumerate(videos)
        for frame in video
    ]
    return VisionFeatures(tuple(tiles), (), video=film)


def draw(frames, count, seed=0):
    return torch.randn(frames, count, 6, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    a, b = a.double(), b.double()
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else 0.0


def best(scores, count):
    return sorted(scores, key=lambda key: (-scores[key], key))[:count]


def changed_by_hand(video, ratio):
    """The kept (frame, token) of a video: the first frame before anything else."""
    scores = {}
    for frame, tokens in enumerate(video):
        for i, token in enumerate(tokens):
            before = video[frame - 1][i]
            alike = cosine(token, before) if bool(token.any()) == bool(before.any()) else 0.5
            scores[frame, i] = (1 - alike if not torch.equal(token, before) else 0.0) if frame else math.inf
    return set(best(scores, max(1, int(video.shape[0] * video.shape[1] * ratio + 1e-6))))


def kept_of(selection, frames):
    """Each video's kept (frame, token), for videos of so many frames."""
    indices, kept = iter(selection.indices), []
    for count in frames:
        kept.append({(frame, i) for frame in range(count) for i in next(indices).tolist()})
    return kept


def evs(features, ratio):
    return RankPrune()(significance=FrameChange()(features=features), ratio=ratio, over="image")


def vidcom2(features, ratio, **given):
    budget = FrameBudget()(features=features, ratio=ratio, **given)
    return RankPrune()(significance=FrameUniqueness()(features=features), budget=budget)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4, 1.0])
def test_evs_is_its_rule_in_each_of_several_videos(ratio):
    videos = [draw(5, 8), draw(1, 3, 1), draw(3, 12, 2)]
    kept = kept_of(evs(features_of(*videos), ratio), [5, 1, 3])
    assert kept == [changed_by_hand(video, ratio) for video in videos]


def test_the_first_frame_is_kept_before_what_changes_most():
    video = draw(4, 6)
    video[1] = -video[0]  # cosine −1: the largest change there is
    assert kept_of(evs(features_of(video), 0.25), [4])[0] == {(0, i) for i in range(6)}
    assert {(1, i) for i in range(6)} < kept_of(evs(features_of(video), 0.5), [4])[0]


def test_what_stands_still_goes_first_and_ties_go_to_the_earlier():
    video = draw(1, 5).repeat(4, 1, 1)
    video[2, 3] = draw(1, 1, 7)[0, 0]
    kept = kept_of(evs(features_of(video), 0.4), [4])[0] - {(0, i) for i in range(5)}
    assert kept == {(2, 3), (3, 3), (1, 0)}
    zeros = torch.zeros(3, 4, 6)
    zeros[2, 1:3, 0] = 1.0
    assert kept_of(evs(features_of(zeros), 0.5), [3]) == [{*((0, i) for i in range(4)), (2, 1), (2, 2)}]
    assert kept_of(evs(features_of(zeros), 0.7), [3]) == [changed_by_hand(zeros, 0.7)]


def budgets_by_hand(video, kept, temperature):
    frames, count, _ = video.shape
    whole = video.double().mean((0, 1))
    unique = [-sum(cosine(token, whole) for token in frame) / count for frame in video]
    total = sum(math.exp((u - max(unique)) / temperature) for u in unique)
    shares = [kept / frames * (1 + math.exp((u - max(unique)) / temperature) / total - 1 / frames) for u in unique]
    least = 1 if kept >= frames else 0
    budgets = [max(least, min(count, math.floor(share))) for share in shares]
    while sum(budgets) < kept:
        behind = {t: shares[t] - budgets[t] for t in range(frames) if budgets[t] < count}
        budgets[best(behind, 1)[0]] += 1
    while sum(budgets) > kept:
        ahead = {t: budgets[t] - shares[t] for t in range(frames) if budgets[t] > least}
        budgets[best(ahead, 1)[0]] -= 1
    return budgets


def unique_by_hand(video, ratio, temperature):
    frames, count, _ = video.shape
    budgets = budgets_by_hand(video, max(1, int(frames * count * ratio + 1e-6)), temperature)
    whole, kept = video.double().mean((0, 1)), set()
    for frame, tokens in enumerate(video):
        centre = tokens.double().mean(0)
        scores = {i: -cosine(token, whole) - cosine(token, centre) for i, token in enumerate(tokens)}
        kept |= {(frame, i) for i in best(scores, budgets[frame])}
    return kept


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.25, 0.8, 1.0])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 10.0])
def test_vidcom2_is_its_rule_in_each_of_several_videos(ratio, temperature):
    videos = [draw(5, 8), draw(1, 3, 1), draw(3, 12, 2)]
    kept = kept_of(vidcom2(features_of(*videos), ratio, temperature=temperature), [5, 1, 3])
    assert kept == [unique_by_hand(video, ratio, temperature) for video in videos]


def test_an_unusual_frame_gets_more_and_none_goes_empty():
    video = draw(1, 20).repeat(4, 1, 1) + 0.01 * draw(4, 20, 3)
    video[2] = -video[2]
    counts = [len(frame) for frame in vidcom2(features_of(video), 0.25).indices]
    assert sum(counts) == 20 and counts[2] == max(counts) > 5 and min(counts) >= 1


def test_alike_frames_share_alike_and_zeros_do_no_harm():
    alike, unusual = torch.full((4,), 0.5), torch.tensor([0.0, 9.0, 0.0])
    assert frame_budgets(alike, 22, 10, 0.01).tolist() == [6, 6, 5, 5]
    assert frame_budgets(unusual, 2, 10, 0.01).tolist() == [1, 1, 0]
    assert frame_budgets(unusual, 20, 10, 0.01).tolist() == [5, 10, 5]
    assert [len(frame) for frame in vidcom2(features_of(torch.zeros(2, 4, 6)), 0.5).indices] == [2, 2]


@pytest.mark.parametrize("method", [evs, vidcom2])
def test_half_precision_is_compared_in_float32(method):
    low = draw(4, 10).bfloat16()
    ours, theirs = method(features_of(low), 0.3), method(features_of(low.float()), 0.3)
    assert all(torch.equal(a, b) for a, b in zip(ours.indices, theirs.indices, strict=True))


@pytest.mark.parametrize("method", [evs, vidcom2])
def test_pictures_are_refused(method):
    with pytest.raises(UserError, match="these are pictures") as refused:
        method(features_of(draw(2, 4), film=False), 0.5)
    assert "LoadVideo" in refused.value.hint
