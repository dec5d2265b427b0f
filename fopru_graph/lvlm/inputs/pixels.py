"""Decoded samples to 8-bit RGB, by what the file says of them: depth, sign, which end is white, what is transparent.

Pillow opens more kinds of samples than it converts rightly: it clips what is deeper than 8 bits, and forgets which end
of 16-bit grey is white. Only that is put right here, from the tags that Pillow read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageOps, ImagePalette, TiffImagePlugin, features

from fopru_graph.lvlm.inputs.formats import unsupported

_WHITES = (1, 255, 65535)  # what white may be in samples that do not say it
_SUBFILE_TYPE, _COLOUR_MAP, _INK_SET = 254, 320, 332
# libtiff gives samples in the machine's byte order, which Pillow knows of unsigned ones only.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


@contextlib.contextmanager
def one_tiff_decoder() -> Iterator[None]:
    """Let libtiff decode all TIFF: Pillow's code for uncompressed ones misreads 16-bit planes and subsampled chroma.

    It sets a global of Pillow's, so the caller lets one thread in at a time.
    """
    before = TiffImagePlugin.READ_LIBTIFF
    TiffImagePlugin.READ_LIBTIFF = before or bool(features.check("libtiff"))
    try:
        yield
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


@dataclass(frozen=True)
class _Samples:
    """What a file says of its samples; ``least_is_white`` if Pillow has not turned them round already."""

    bits: int = 8
    signed: bool = False
    least_is_white: bool = False


class Reader:
    """Makes RGB pictures of an opened file: upright, without metadata, transparency over white.

    Grey of up to 16 bits is scaled by its depth. Signed, 32-bit and float grey does not say which value is white: it is
    the smallest of 1, 255, 65535 and the type's largest number that no value exceeds; samples with other values are
    stretched from their least to their greatest. Deeper colours keep their upper 8 bits.

    Args:
        path: the file, for messages.
        opened: the file as Pillow opened it, nothing decoded yet.

    Raises:
        UserError: the pixels would not be those that the file means.
    """

    def __init__(self, path: str, opened: PIL.Image.Image) -> None:
        self._path, self._opened, self._samples = path, opened, _Samples()
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            self._samples = _prepare_tiff(path, opened)
        elif opened.format == "PNG":
            self._samples = _prepare_png(opened)

    def picture(self) -> PIL.Image.Image:
        """Decode the current frame.

        Raises:
            UserError: as for the class.
            Exception: whatever Pillow raises for a damaged file.
        """
        low = self._low_bytes()
        self._opened.load()
        # Only after load: a PNG may carry its EXIF behind the pixels, and TIFF is turned by load itself.
        picture = _upright(self._opened)
        if low is not None:
            _clear_colour(picture, _upright(low))
        return _to_rgb(picture, self._samples)

    def _low_bytes(self) -> PIL.Image.Image | None:
        """The lower 8 bits of a PNG's 16-bit colours, decoded if one of them is transparent: Pillow keeps the upper."""
        if _raw_mode(self._opened) != "RGB;16B" or "transparency" not in self._opened.info:
            return None
        if getattr(self._opened, "is_animated", False):
            raise unsupported(self._path, "animated PNG of 16-bit colours, one of them transparent")
        opened: Any = self._opened
        low = PIL.Image.open(io.BytesIO(opened.fp.getvalue()), formats=["PNG"])
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        return low


def of_memory(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A new RGB picture of one that Pillow holds, by the rules of `Reader` as far as the mode tells what a file said.

    Raises:
        Exception: whatever Pillow raises if it opened a damaged file and only now reads it.
    """
    picture.load()
    return _to_rgb(_upright(picture), _Samples(16 if picture.mode.startswith("I;16") else 8))


def _prepare_tiff(path: str, opened: TiffImagePlugin.TiffImageFile) -> _Samples:
    """Put right how Pillow will decode a TIFF, or refuse it; returns what its tags say of its samples."""
    tags: Any = opened.tag_v2
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
    if int(tags.get(_SUBFILE_TYPE, 0)) & 1:
        raise unsupported(path, "TIFF that begins with a small preview, as raw files of cameras do")
    if photometric == 5 and tags.get(_INK_SET, 1) != 1:
        raise unsupported(path, "TIFF of other inks than cyan, magenta, yellow and black")
    if opened.mode in ("P", "PA") and max(tags[_COLOUR_MAP]) < 256:  # old writers forgot that entries have 16 bits
        opened.palette = ImagePalette.raw("RGB;L", bytes(tags[_COLOUR_MAP]))
    tiles: Any = opened.tile  # Pillow types the arguments of all decoders in one
    opened.tile = [
        tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:])) if tile[0] == "libtiff" else tile
        for tile in tiles
    ]
    return _Samples(
        bits=tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0],
        signed=tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 2,
        least_is_white=photometric == 0 and opened.mode not in ("1", "L"),
    )


def _prepare_png(opened: PIL.Image.Image) -> _Samples:
    """Put the transparent level of a grey PNG on the scale of Pillow's pixels; returns the depth of its samples."""
    depths = {"1": 1, "L;2": 2, "L;4": 4, "I;16B": 16}
    bits = depths.get(_raw_mode(opened), 8)
    level = opened.info.get("transparency")
    if opened.mode in ("1", "L") and isinstance(level, int):
        opened.info["transparency"] = (level & (2**bits - 1)) * 255 // (2**bits - 1)
    return _Samples(bits)


def _raw_mode(opened: Any) -> str:
    """How Pillow will unpack the file's samples."""
    args = opened.tile[0].args if opened.tile else ""
    return str(args if isinstance(args, str) else args[0])


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A copy turned as its EXIF data says; unreadable EXIF counts as none, because the pixels are sound."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # EXIF is parsed from arbitrary bytes
        return picture.copy()


def _clear_colour(picture: PIL.Image.Image, low: PIL.Image.Image) -> None:
    """Make the transparent 16-bit colour of ``picture`` (upper bytes) and ``low`` (lower bytes) transparent."""
    colour = np.array(picture.info.pop("transparency"))
    clear = (np.asarray(picture) == colour >> 8) & (np.asarray(low) == colour & 255)
    picture.putalpha(_grey(~clear.all(-1) * 255))


def _to_rgb(picture: PIL.Image.Image, samples: _Samples) -> PIL.Image.Image:
    """A new RGB picture without metadata; transparency over white."""
    if picture.mode.startswith(("I", "F")) or samples.signed:
        picture = _eight_bit(picture, samples)
    if picture.mode == "La":  # grey times alpha; only LA can be made of it
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)
    rgb = picture.convert("RGB")
    rgb.info = {}
    return rgb


def _eight_bit(picture: PIL.Image.Image, samples: _Samples) -> PIL.Image.Image:
    """Grey of any kind as ``L``, or ``LA`` if a level is transparent. Pillow's conversion would clip."""
    raw = np.asarray(picture)
    if samples.signed:
        raw = raw.astype(np.int8) if samples.bits == 8 else raw
    elif picture.mode == "I" and samples.bits == 32:
        raw = raw.view(np.uint32)  # Pillow's I is signed
    grey = np.nan_to_num(raw.astype(np.float64), posinf=np.inf, neginf=-np.inf)
    low, high = (0.0, 2.0**samples.bits - 1) if picture.mode.startswith("I;16") else _black_and_white(grey, samples)
    scaled = (np.clip(grey, low, high) - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    result = _grey(255 - np.rint(scaled) if samples.least_is_white else np.rint(scaled))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        result.putalpha(_grey((raw != clear) * 255))
    return result


def _black_and_white(grey: npt.NDArray[np.float64], samples: _Samples) -> tuple[float, float]:
    """The least and the greatest value to show of samples that do not say it, see `Reader`."""
    finite = grey[np.isfinite(grey)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    most = 2.0 ** (samples.bits - 1) - 1 if samples.signed else np.inf
    fitting = [min(white, most) for white in _WHITES if high <= min(white, most)]
    return (0.0, fitting[0]) if low >= 0 and fitting else (low, high)


def _grey(values: npt.NDArray[Any]) -> PIL.Image.Image:
    return PIL.Image.fromarray(values.astype(np.uint8))
