"""Videos: a folder of pictures in the order of their names, an animated picture file, or what PyAV reads.

Frames are evenly spaced in time, see `timing.sample`. They are decoded as strictly as pictures: a video with one bad
frame is refused.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path

import PIL.Image

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs import film, images
from fopru_graph.lvlm.inputs.timing import Sample, Shown, sample
from fopru_graph.paths import local_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_WANTED = (
    "give a folder of pictures or an animated GIF, WebP or PNG file; frames can be extracted first, "
    "e.g. ffmpeg -i VIDEO -vf fps=2 FOLDER/%05d.png"
)


def load_video(
    path: str, frames: int | None = None, fps: float | None = None, folder_fps: float | None = None
) -> values.Video:
    """Decode ``frames`` frames, evenly spaced in time, or ``fps`` frames a second; all frames if there are fewer.

    A folder has no times unless ``folder_fps`` says how many of its pictures make a second; without it ``frames`` are
    evenly spaced by number, with the first and the last.

    Names are sorted by the numbers in them: ``frame2`` comes before ``frame10``. Hidden files of a folder, and files
    without a picture's suffix, are ignored.

    Raises:
        UserError: not just one of ``frames`` and ``fps`` is given, or one is not positive; ``fps`` for a folder without
            ``folder_fps``, or ``folder_fps`` for a file; PyAV is needed and not there; there is no such file or folder,
            it holds no pictures or only one still picture, a frame is damaged or too large (see `images.load_image`),
            or frames differ in size.
    """
    path = local_path(path)
    _check_sampling(path, frames, fps, folder_fps)

    def pick(shown: Shown) -> Sample:
        return sample(path, shown, frames, fps)

    if _is_folder(path):
        pictures, taken = _load_folder(path, frames, folder_fps, pick)
    elif film.is_film(path):
        pictures, taken = film.load_film(path, pick, _WANTED)
    else:
        pictures, taken = images.load_frames(path, pick, _WANTED)
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        named = ", ".join(f"{width} × {height}" for width, height in sizes[:3])
        raise UserError(f"the frames of '{path}' differ in size: {named}", "scale them to one size first")
    if taken is None:
        return values.Video(tuple(pictures), path)
    return values.Video(tuple(pictures), path, taken.times, taken.duration)


def _check_sampling(path: str, frames: int | None, fps: float | None, folder_fps: float | None) -> None:
    """Refuse, before anything is read, what says nothing or two things.

    Raises:
        UserError: see `load_video`.
    """
    if (frames is None) == (fps is None):
        given = "neither frames nor fps is given" if frames is None else "both frames and fps are given"
        raise UserError(f"{given} for the video '{path}'", "give one: the number of frames, or frames a second")
    if frames is not None and frames < 1:
        raise UserError(f"frames of the video '{path}' must be at least 1, not {frames}", "it is the number to take")
    for name, value in (("fps", fps), ("folder_fps", folder_fps)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} of the video '{path}' must be above 0, not {value}", "it is frames a second")
    folder = _is_folder(path)
    if fps is not None and folder and folder_fps is None:
        raise UserError(
            f"the pictures in '{path}' have no times, so fps cannot choose among them",
            "say with folder_fps how many of them make a second, or give frames",
        )
    if folder_fps is not None and not folder:
        raise UserError(f"folder_fps is given, but '{path}' is no folder", "leave it out: the file has its own times")


def fingerprint(path: str) -> str:
    """SHA-256 in hex of the names and contents of all frames, ``missing`` if there is none. A part of cache keys."""
    path = local_path(path)
    if not _is_folder(path):
        return images.fingerprint(path)
    digest = hashlib.sha256()
    files = _files(path)
    for file in files:
        digest.update(f"{file.name}\0{images.fingerprint(str(file))}\0".encode(errors="surrogateescape"))
    return digest.hexdigest() if files else "missing"


def evenly(count: int, frames: int) -> list[int]:
    """The indices of ``frames`` frames out of ``count``: first, last and equal steps between; the middle one for 1."""
    if frames >= count:
        return list(range(count))
    if frames == 1:
        return [(count - 1) // 2]
    return [(2 * i * (count - 1) + frames - 1) // (2 * (frames - 1)) for i in range(frames)]


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _files(path: str) -> list[Path]:
    """The picture files of a folder in order; none if it is unreadable."""

    def order(file: Path) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.findall(r"[0-9]+|[^0-9]+", file.name.lower())
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], file.name

    try:
        files = [file for file in Path(path).iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
    except OSError:
        return []
    return sorted(files, key=order)


def _load_folder(
    path: str, frames: int | None, folder_fps: float | None, pick: Callable[[Shown], Sample]
) -> tuple[list[PIL.Image.Image], Sample | None]:
    """A folder's pictures, and when they are shown if that is known."""
    files = _files(path)
    if not files:
        raise UserError(f"the folder '{path}' holds no pictures, or cannot be listed", _WANTED)
    taken, indices = None, evenly(len(files), frames or len(files))
    if folder_fps is not None:
        taken = pick(Shown(tuple(index / folder_fps for index in range(len(files))), len(files) / folder_fps))
        indices = list(taken.indices)
    pictures = {index: images.load_image(str(files[index])).picture for index in dict.fromkeys(indices)}
    return [pictures[index] for index in indices], taken
