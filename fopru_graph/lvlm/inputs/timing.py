"""When frames are shown, and which of them to take so that they are evenly spaced in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from fopru_graph.errors import UserError

MAX_FRAMES = 4096
_ROUNDING = 1e-6  # seconds; times are sums of fractions


@dataclass(frozen=True)
class Shown:
    """When each frame begins to be shown and how long all last, in seconds from the first."""

    times: tuple[float, ...]
    duration: float

    @classmethod
    def lasting(cls, seconds: Sequence[float]) -> Shown:
        """Frames that follow one another and last so long each."""
        times = [0.0]
        for each in seconds:
            times.append(times[-1] + each)
        return cls(tuple(times[:-1]), times[-1])


@dataclass(frozen=True)
class Sample:
    """Ascending indices of the frames to take, a time for each and the video's duration.

    A frame that is shown long may come more than once.
    """

    indices: tuple[int, ...]
    times: tuple[float, ...]
    duration: float


def sample(path: str, shown: Shown, frames: int | None, fps: float | None) -> Sample:
    """Moments evenly spaced in time, and at each the frame that is shown then.

    ``frames`` moments from the begin of the first frame to that of the last, half way for one; or a moment every
    1 / ``fps`` seconds from 0 on. All frames, each at its own time, if there are not more of them than moments.

    Raises:
        UserError: ``fps`` takes too many frames.
    """
    count, last = len(shown.times), shown.times[-1]
    number = 1 + int((shown.duration - _ROUNDING) * fps) if fps is not None else frames or count
    if number >= count:
        moments = list(shown.times)
    elif fps is not None:
        moments = [index / fps for index in range(number)]
    else:
        moments = [index * last / (number - 1) for index in range(number)] if number > 1 else [last / 2]
    if fps is not None and len(moments) > MAX_FRAMES:
        raise UserError(
            f"fps {fps:g} takes {len(moments)} frames of '{path}', more than {MAX_FRAMES}",
            "take fewer a second, or give frames",
        )
    indices = tuple(bisect_right(shown.times, moment + _ROUNDING) - 1 for moment in moments)
    return Sample(indices, tuple(moments), shown.duration)
