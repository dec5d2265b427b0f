"""Video files such as MP4 and WebM, decoded by PyAV (FFmpeg), the package ``av`` of the extra ``video``."""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.inputs import formats, images
from fopru_graph.lvlm.inputs.timing import Sample, Shown


def is_film(path: str) -> bool:
    """Whether a regular file begins like a video file."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return False
        with open(path, "rb") as file:
            return formats.is_film(file.read(16))
    except (OSError, ValueError):
        return False


def load_film(path: str, pick: Callable[[Shown], Sample], wanted: str) -> tuple[list[PIL.Image.Image], Sample]:
    """Frames of a video file's first video track, upright.

    Args:
        path: the file.
        pick: maps the times of all frames to the sample of those to decode.
        wanted: says in messages what to give instead.

    Raises:
        UserError: PyAV is not installed, or the file holds no frames, is damaged or too large.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"'{path}' is a video file, which PyAV reads", f"pip install av, or {wanted}") from error
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise UserError(f"the video '{path}' has no frames", "it may hold sound only; " + wanted)
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}  # FFmpeg would conceal damage
            stream.thread_type = "AUTO"
            images.check_size(path, stream.width, stream.height)
            starts, keys, shown = _scan(path, stream)
            sample = pick(shown)
            return _decode(path, stream, starts, keys, sample.indices), sample
    except av.FFmpegError as error:
        raise UserError(f"the video '{path}' cannot be decoded: {first_line(error)}", formats.DAMAGED) from error


def _scan(path: str, stream: Any) -> tuple[list[int], list[int], Shown]:
    """Without decoding: the begin of every frame and of every key frame in the stream's units, and their seconds."""
    packets = [packet for packet in stream.container.demux(stream) if packet.size]
    if not packets:
        raise UserError(f"the video '{path}' has no frames", formats.DAMAGED)
    shown = [packet for packet in packets if packet.pts is not None and not packet.is_discard]
    if not shown or len(packets) < stream.frames:  # fewer than the header says
        raise UserError(f"the video '{path}' is cut short, or its frames have no times", formats.DAMAGED)
    shown.sort(key=lambda packet: packet.pts)
    starts = [packet.pts for packet in shown]
    gap = (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    unit, last = stream.time_base, shown[-1].duration or gap
    duration = float((starts[-1] + last - starts[0]) * unit)
    if duration <= 0:
        raise UserError(f"the video '{path}' does not say how long it lasts", "give a folder of its frames")
    times = Shown(tuple(float((start - starts[0]) * unit) for start in starts), duration)
    return starts, [packet.pts for packet in shown if packet.is_keyframe], times


def _decode(
    path: str, stream: Any, starts: Sequence[int], keys: Sequence[int], indices: Sequence[int]
) -> list[PIL.Image.Image]:
    """The frames of ascending ``indices``; decoding jumps to the last key frame before each."""
    pictures: dict[int, PIL.Image.Image] = {}
    container, at = stream.container, None
    for wanted in dict.fromkeys(starts[index] for index in indices):
        key = keys[max(0, bisect_right(keys, wanted) - 1)] if keys else starts[0]
        if at is None or key > at:
            container.seek(key, stream=stream)
            frames = container.decode(stream)
        for frame in frames:
            at = frame.pts
            if at == wanted and not frame.is_corrupt:
                pictures[wanted] = frame.to_image().rotate(frame.rotation, expand=True)
                break
        if wanted not in pictures:
            seconds = float((wanted - starts[0]) * stream.time_base)
            raise UserError(f"the frame of '{path}' at {seconds:.2f} seconds cannot be decoded", formats.DAMAGED)
    return [pictures[starts[index]] for index in indices]
