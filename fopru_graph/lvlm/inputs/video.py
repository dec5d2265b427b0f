"""Videos as Pillow can read them: a folder of pictures in the order of their names, or an animated picture file.

Frames are evenly spaced and include the first and the last. They are decoded as strictly as pictures: a video with one
bad frame is refused.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import PIL.Image

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs import images

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_WANTED = (
    "give a folder of pictures or an animated GIF, WebP or PNG file; frames of others can be extracted first, "
    "e.g. ffmpeg -i VIDEO -vf fps=2 FOLDER/%05d.png"
)


def load_video(path: str, frames: int = 8) -> values.Video:
    """Decode ``frames`` frames, evenly spaced; all frames if there are fewer.

    Names are sorted by the numbers in them: ``frame2`` comes before ``frame10``. Hidden files of a folder, and files
    without a picture's suffix, are ignored.

    Raises:
        UserError: there is no such file or folder, it holds no pictures or only one still picture, a frame is damaged
            or too large (see `images.load_image`), or frames differ in size.
    """
    if frames < 1:
        raise UserError(f"frames must be at least 1, not {frames}", "it is the number of frames to take")
    if _is_folder(path):
        pictures = _load_folder(path, frames)
    else:
        pictures = images.load_frames(path, lambda count: evenly(count, frames), _WANTED)
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        named = ", ".join(f"{width} × {height}" for width, height in sizes[:3])
        raise UserError(f"the frames of '{path}' differ in size: {named}", "scale them to one size first")
    return values.Video(tuple(pictures), path)


def fingerprint(path: str) -> str:
    """SHA-256 in hex of the names and contents of all frames, ``missing`` if there is none. A part of cache keys."""
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


def _load_folder(path: str, frames: int) -> list[PIL.Image.Image]:
    files = _files(path)
    if not files:
        raise UserError(f"the folder '{path}' holds no pictures, or cannot be listed", _WANTED)
    return [images.load_image(str(files[i])).picture for i in evenly(len(files), frames)]
