"""Picture files to RGB: every file gives either the right pixels or one `UserError` that says what is wrong with it.

Decoding is strict on purpose: half a picture, a wrongly scaled 16-bit scan or a photo lying on its side would give
plausible answers to the wrong question.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import PIL.Image
from PIL import UnidentifiedImageError

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.identity import file_digest
from fopru_graph.lvlm.inputs import formats, pixels
from fopru_graph.lvlm.inputs.timing import Sample, Shown
from fopru_graph.paths import local_path

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
ANIMATED = ("GIF", "WEBP", "PNG")
MAX_PIXELS = 40_000_000
MAX_ASPECT = 200
MAX_BYTES = 512 * 2**20

_DEMO = "demo:"
_GIVEN = "given:"  # what records of runs say in place of an object
_SAMPLES = Path(__file__).resolve().parents[2] / "demo" / "samples"
_WANTED = "give a PNG, JPEG, WEBP, BMP, GIF or TIFF file"
_SMALLER = f"scale or crop it to at most {MAX_PIXELS // 10**6} megapixels first"
# Filters of warnings and Pillow's choice of a TIFF decoder are global, so only one thread at a time may change them.
_GLOBALS = threading.Lock()


def load_image(path: str) -> values.Image:
    """Decode a file, or the bundled sample ``demo:NAME``, into an RGB picture, upright, over white where transparent.

    PNG, JPEG, WEBP, BMP, GIF and TIFF are read; an animation gives its first frame. `pixels.Reader` says how samples
    of other than 8 bits become 8 bits.

    Raises:
        UserError: the file is missing, no regular file, no picture of these formats, damaged, larger than 40
            megapixels or longer than 200 times its width (or the reverse); or its kind is not supported.
    """
    return decode_image(_read(path), path)


def decode_image(data: bytes, source: str) -> values.Image:
    """Decode the content of a picture file as `load_image` does; ``source`` names it in messages.

    Raises:
        UserError: as for `load_image`.
    """
    if not data:
        raise UserError(f"'{source}' is empty", formats.DAMAGED)
    if len(data) > MAX_BYTES:
        raise UserError(f"'{source}' is too large: more than {MAX_BYTES >> 20} MiB", _SMALLER)
    with _opened(source, data, _WANTED) as opened:
        picture = pixels.Reader(source, opened).picture()
    return values.Image(picture, source)


def load_frames(path: str, pick: Callable[[Shown], Sample], wanted: str) -> tuple[list[PIL.Image.Image], Sample]:
    """Frames of an animated GIF, WEBP or PNG, decoded as `load_image` decodes pictures.

    Args:
        path: the file.
        pick: maps the times of all frames to the sample of those to decode.
        wanted: says in messages what to give instead.

    Raises:
        UserError: as for `load_image`, or the file has only one frame.
    """
    data = _read(path)
    frames: dict[int, PIL.Image.Image] = {}
    with _opened(path, data, wanted) as opened:
        first = int(getattr(opened, "default_image", False))  # a PNG's still substitute is no frame
        count = getattr(opened, "n_frames", 1) - first
        if count < 2 or opened.format not in ANIMATED:
            raise UserError(f"'{path}' is a still picture, not a video", wanted)
        reader = pixels.Reader(path, opened)
        # Reading on changes what Pillow says of transparency, which the reader must see as the file has it.
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as timed:
            sample = pick(Shown.lasting([_seconds(timed, first + index) for index in range(count)]))
        for index in dict.fromkeys(sample.indices):
            opened.seek(first + index)
            frames[index] = reader.picture()
    return [frames[index] for index in sample.indices], sample


def _seconds(opened: PIL.Image.Image, index: int) -> float:
    """How long a frame of an animation is shown; one that does not say it 0.1 seconds, as browsers show it."""
    opened.seek(index)
    if opened.format == "WEBP":
        opened.load()  # only then Pillow knows
    return float(opened.info.get("duration") or 100) / 1000


def picture_size(path: str) -> tuple[int, int] | None:
    """(height, width) as the file's header says, before it is turned; None if it says nothing."""
    try:
        with _opened(path, _read(path), _WANTED) as opened:
            return opened.height, opened.width
    except UserError:
        return None


def fingerprint(path: str) -> str:
    """SHA-256 of the file's content in hex, ``missing`` if it is no readable regular file. A part of cache keys."""
    try:
        file = _locate(path)
        if not stat.S_ISREG(file.stat().st_mode):
            return "missing"
        return file_digest(file)
    except (OSError, ValueError, UserError):
        return "missing"


def samples() -> list[str]:
    """Names of the bundled sample pictures, for ``demo:NAME``."""
    return sorted(file.stem for file in _SAMPLES.glob("*.png"))


def shrink(image: values.Image) -> values.Image:
    """The image with its picture shrunk to its share of pixels: each side by √``resolution``."""
    if image.resolution == 1:
        return image
    scale = math.sqrt(image.resolution)
    size = [max(1, round(side * scale)) for side in image.picture.size]
    return replace(image, picture=image.picture.resize(size, PIL.Image.Resampling.BICUBIC), resolution=1.0)


def _locate(path: str) -> Path:
    if path.startswith(_GIVEN):
        hint = "set a picture again, e.g. --set image=photo.jpg"
        raise UserError(f"'{path}' stands for a picture that was given in Python, and is kept nowhere", hint)
    if not path.startswith(_DEMO):
        return Path(local_path(path))
    name, known = path.removeprefix(_DEMO), samples()
    if name in known:
        return _SAMPLES / f"{name}.png"
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean '{_DEMO}{close[0]}'? " if close else ""
    raise UserError(
        f"there is no sample picture '{path}'", f"{hint}the samples are {', '.join(known) or 'not installed'}"
    )


def _read(path: str) -> bytes:
    """The content of a regular file; never blocks on a pipe or device."""
    if path.startswith(("http://", "https://")):
        raise UserError(f"'{path}' is an address, not a file", "download the picture first; nothing is fetched here")
    try:
        file = _locate(path)
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise UserError(f"'{path}' is {kind}, not a picture", _WANTED)
        if status.st_size > MAX_BYTES:
            raise UserError(f"'{path}' is too large: more than {MAX_BYTES >> 20} MiB", _SMALLER)
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no file '{path}'", _near(file)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"'{path}' cannot be read: {reason}", "check the name and its permissions") from error
    if not data:
        raise UserError(f"'{path}' is empty", formats.DAMAGED)
    return data


def _near(path: Path) -> str:
    """A hint for the name of a file that does not exist: the closest name that does."""
    if path.name in samples():
        return f"the sample picture is called '{_DEMO}{path.name}'"
    if path.parts[:1] == ("file:",):
        return "a file URL of this machine begins with three slashes, as file:///home/me/photo.jpg"
    try:
        close = difflib.get_close_matches(path.name, os.listdir(path.parent), 1)
    except OSError:
        return f"the folder '{path.parent}' does not exist or cannot be listed"
    return f"did you mean '{path.parent / close[0]}'?" if close else "check the name and the current folder"


@contextlib.contextmanager
def _opened(path: str, data: bytes, wanted: str) -> Iterator[PIL.Image.Image]:
    """The file as Pillow opens it; whatever is wrong with it inside the block becomes a `UserError`."""
    # Decoders warn of odd metadata, which tells a user nothing. Their warning of a decompression bomb, from 89
    # megapixels on, is not needed either: _check_size refuses far smaller pictures and says their size.
    with _GLOBALS, warnings.catch_warnings(), pixels.one_tiff_decoder():
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                check_size(path, *opened.size)
                yield opened
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise formats.unidentified(path, data, wanted) from error
        except PIL.Image.DecompressionBombError as error:
            raise UserError(f"'{path}' is too large: more than {MAX_PIXELS // 10**6} megapixels", _SMALLER) from error
        except Exception as error:  # Decoders raise whatever a damaged header leads them to
            raise formats.undecodable(path, data, error) from error


def check_size(path: str, width: int, height: int) -> None:
    """Refuse a size by the header, before any pixel is decoded."""
    if width < 1 or height < 1:
        raise UserError(f"'{path}' has no pixels: its header says {width} × {height}", formats.DAMAGED)
    if width * height > MAX_PIXELS:
        most = MAX_PIXELS // 10**6
        raise UserError(f"'{path}' is too large: {width} × {height} pixels, more than {most} megapixels", _SMALLER)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UserError(
            f"'{path}' is too narrow: {width} × {height} pixels",
            f"one side may be {MAX_ASPECT} times the other at most",
        )
