"""Pictures and videos as they were read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fopru_graph.describing import FILE, Described
from fopru_graph.errors import UserError

if TYPE_CHECKING:
    import PIL.Image

UNTIMED_FPS = 24.0  # what stock processors assume of frames that have no times


@dataclass(frozen=True, eq=False, repr=False)
class Image(Described):
    """A decoded RGB picture, the file it came from, and the share of its pixels to encode it with, in (0, 1]."""

    picture: PIL.Image.Image
    source: str = field(metadata={FILE: True})
    resolution: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.picture.height, self.picture.width

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels; the engine's memory cache asks for them."""
        return 3 * self.picture.height * self.picture.width


@dataclass(frozen=True, eq=False, repr=False)
class Video(Described):
    """Frames of a video and the file or folder they came from.

    ``times`` are each frame's seconds from the beginning, ``duration`` the seconds of the whole video, with frames that
    were not taken; both or none. Without them frames count as 24 a second, as in stock processors.

    Raises:
        UserError: there are no frames, or not a time for each.
    """

    frames: tuple[PIL.Image.Image, ...]
    source: str = field(metadata={FILE: True})
    times: tuple[float, ...] = ()
    duration: float | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise UserError(f"the video '{self.source}' has no frames", "give at least one")
        if bool(self.times) != bool(self.duration) or len(self.times) not in (0, len(self.frames)):
            raise UserError(
                f"the video '{self.source}' has {len(self.frames)} frames, {len(self.times)} times and a duration of "
                f"{self.duration}",
                "give a time for every frame and the duration in seconds, or none of both",
            )

    @property
    def frame_times(self) -> tuple[float, ...]:
        """Each frame's seconds from the beginning."""
        return self.times or tuple(index / UNTIMED_FPS for index in range(len(self.frames)))

    @property
    def frame_rate(self) -> float:
        """Frames a second of the whole video, as stock processors count them: frames that were taken by duration."""
        return len(self.frames) / self.duration if self.duration else UNTIMED_FPS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height in pixels, width in pixels)."""
        return len(self.frames), self.frames[0].height, self.frames[0].width

    @property
    def nbytes(self) -> int:
        """Bytes of all frames' pixels; the engine's memory cache asks for them."""
        return sum(3 * frame.height * frame.width for frame in self.frames)
