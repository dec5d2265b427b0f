"""Videos: how much tokens differ from the frame before (EVS) or from the whole video (VidCom²), and frames' budgets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from fopru_graph.errors import UserError
from fopru_graph.pruning.select import kept_count
from fopru_graph.values import VisionFeatures

FIRST_FRAME = 3.0  # above every change, which is 2 at most


def videos_of(features: VisionFeatures) -> list[torch.Tensor]:
    """Each video's tokens (T, N, D), frame by frame; a frame is a tile, in Qwen-VL that of a pair of frames.

    Raises:
        UserError: these are pictures.
    """
    if not features.video:
        raise UserError(
            "frames of a video are compared here, and these are pictures",
            "wire VisionEncode to LoadVideo, or prune pictures by another method",
        )
    frames: dict[int, list[torch.Tensor]] = {}
    for tile in features.tiles:
        frames.setdefault(tile.image, []).append(tile.features)
    return [torch.stack(tokens) for tokens in frames.values()]


def frame_change(video: torch.Tensor) -> torch.Tensor:
    """EVS (arXiv 2510.14624): how much each token differs from that at its place in the frame before.

    Args:
        video: (T, N, D) of any floating type.

    Returns:
        (T, N) float32: 1 − cosine, as half the squared distance of both at unit length: that is exactly 0 where nothing
        changed (and ½ between zero and another vector); `FIRST_FRAME` in the first frame.
    """
    unit = normalize(video.float(), dim=-1)
    change = (unit[1:] - unit[:-1]).square().sum(-1) / 2
    return torch.cat([change.new_full((1, video.shape[1]), FIRST_FRAME), change])


def uniqueness(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """VidCom² (arXiv 2505.14454): how little tokens and frames are like the whole.

    Args:
        video: (T, N, D) of any floating type.

    Returns:
        ``tokens`` (T, N) float32: minus the cosines to the mean of the video and to that of the token's frame; and
        ``frames`` (T,) float32: minus the mean cosine of the frame's tokens to the mean of the video.
    """
    video = video.float()
    unit, centres = normalize(video, dim=-1), video.mean(1)  # (T, D) of frames, equally large
    whole = (unit @ normalize(centres.mean(0), dim=-1)[:, None])[..., 0]
    inside = (unit @ normalize(centres, dim=-1)[..., None])[..., 0]
    return -(whole + inside), -whole.mean(1)


def frame_budgets(unique: Sequence[float], kept: int, available: int, temperature: float) -> list[int]:
    """Share ``kept`` tokens out to T frames of ``available`` tokens: frame t gets kept / T · (1 + σ_t − 1 / T).

    σ is the softmax of ``unique`` / ``temperature``. Shares are rounded down, held between one token (none if there are
    fewer tokens than frames) and the whole frame; then the budget is met token by token, where a frame is furthest
    from its share, of equally far ones in the earlier.
    """
    frames = len(unique)
    softmax = torch.tensor(unique, dtype=torch.float64).div(temperature).softmax(0).tolist()
    shares = [kept / frames * (1 + weight - 1 / frames) for weight in softmax]
    least = 1 if kept >= frames else 0
    budgets = [max(least, min(available, int(share))) for share in shares]
    while (missing := kept - sum(budgets)) != 0:
        step = 1 if missing > 0 else -1
        open_to = [t for t in range(frames) if least <= budgets[t] + step <= available]
        budgets[min(open_to, key=lambda t: step * (budgets[t] - shares[t]))] += step
    return budgets


def share_out(
    features: VisionFeatures, ratio: float | None, tokens: int | None, temperature: float = 0.01
) -> tuple[int, ...]:
    """How many tokens each tile of videos keeps by `frame_budgets`; the host waits once, for all videos together.

    Raises:
        UserError: these are pictures, or the budget is missing or out of bounds.
    """
    videos = videos_of(features)
    unique = torch.cat([uniqueness(video)[1] for video in videos]).tolist()
    budgets: list[int] = []
    for video in videos:
        frames, available, _ = video.shape
        of_video = unique[len(budgets) : len(budgets) + frames]
        kept = kept_count(frames * available, ratio, tokens)
        budgets += frame_budgets(of_video, kept, available, temperature)
    return tuple(budgets)
