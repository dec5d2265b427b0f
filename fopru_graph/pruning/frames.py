"""Videos: how much tokens differ from the frame before (EVS) or from the whole video (VidCom²), and frames' budgets."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize, one_hot

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


def frame_budgets(unique: torch.Tensor, kept: int, available: int, temperature: float) -> torch.Tensor:
    """Share ``kept`` tokens out to T frames of ``available`` tokens: frame t gets kept / T · (1 + σ_t − 1 / T).

    σ is the softmax of ``unique`` (T,) / ``temperature``. Tokens go one by one to the frame that is furthest from its
    share and has room, of equally far ones to the earlier; but each frame gets its first token before any gets a
    second. Nothing waits for the device.

    Returns:
        (T,) int64 with the sum ``kept``.
    """
    frames = len(unique)
    shares = kept / frames * (1 + (unique / temperature).softmax(0) - 1 / frames)
    missing = shares[:, None] - torch.arange(available, device=unique.device)  # before the frame's next token
    missing[:, 0] += kept  # no share is larger
    best = missing.flatten().argsort(descending=True, stable=True)[:kept]
    return one_hot(best // available, frames).sum(0)


def share_out(
    features: VisionFeatures, ratio: float | None, tokens: int | None, temperature: float = 0.01
) -> tuple[int, ...]:
    """How many tokens each tile of videos keeps by `frame_budgets`; the host waits once, for all videos together.

    Raises:
        UserError: these are pictures, or the budget is missing or out of bounds.
    """
    budgets = []
    for video in videos_of(features):
        frames, available, _ = video.shape
        kept = kept_count(frames * available, ratio, tokens)
        budgets.append(frame_budgets(uniqueness(video)[1], kept, available, temperature))
    return tuple(torch.cat(budgets).tolist())
