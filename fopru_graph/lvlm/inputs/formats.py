"""What a file is that does not open as a picture: damaged, of a kind that is not supported, or no picture at all."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image
from PIL import TiffImagePlugin, TiffTags

from fopru_graph.errors import UserError

DAMAGED = "the file is incomplete or corrupt: copy, download or export it again"
CONVERT = "convert it to PNG with 8 bits a channel first"
_SIGNATURES = {  # of the formats that are read
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_OTHER_PICTURES = {
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE  =": "FITS",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x00\x00\x01\x00": "ICO",
    b"icns": "ICNS",
    b"gimp xcf": "GIMP",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"IIU\x00": "camera raw",
    b"IIRO": "camera raw",
    **{b"P" + digit: "Netpbm" for digit in (b"1\n", b"2\n", b"3\n", b"4\n", b"5\n", b"6\n", b"7\n")},
}
_MATROSKA = b"\x1aE\xdf\xa3"
_OTHER = {
    b"%PDF": "a PDF document",
    b"%!PS": "PostScript",
    b"\x1f\x8b": "gzip data",
    b"PK\x03\x04": "a ZIP archive",
    _MATROSKA: "a Matroska or WebM video",
    b"\x93NUMPY": "a NumPy array",
}
_BRANDS = {  # of files in boxes (ISO 14496-12)
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "Canon raw": (b"crx ",),
}
_NUMBERS = {1: "integer", 2: "signed", 3: "float"}  # TIFF's SampleFormat
_COMMON = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # compressions of TIFF that every libtiff has


def is_film(head: bytes) -> bool:
    """Whether a file begins like MP4, QuickTime, Matroska, WebM or AVI; pictures in such boxes are none."""
    boxes = head[4:8] == b"ftyp" and not any(head[8:12] in brands for brands in _BRANDS.values())
    return boxes or head.startswith(_MATROSKA) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def unidentified(path: str, data: bytes, wanted: str) -> UserError:
    """The error for a file that no decoder takes."""
    if (name := _format(data)) is not None:
        if (kind := _unsupported_kind(name, data)) is not None:
            return unsupported(path, f"{name}, {kind}")
        return UserError(f"'{path}' starts like a {name} picture, but its header cannot be read", DAMAGED)
    if (name := _other_picture(data)) is not None:
        return unsupported(path, name)
    return UserError(f"'{path}' is not a picture that can be read: it holds {_content(data)}", wanted)


def undecodable(path: str, data: bytes, error: Exception) -> UserError:
    """The error for a picture whose decoder failed with ``error``."""
    reason = str(error) or type(error).__name__
    if _says_unsupported(reason):
        return unsupported(path, reason)
    compression = _tiff_tags(data).get(TiffImagePlugin.COMPRESSION, 1) if _format(data) == "TIFF" else 1
    if compression not in _COMMON:
        name = _enum_name(TiffImagePlugin.COMPRESSION, compression)
        return UserError(
            f"'{path}' cannot be decoded: {reason}",
            f"if it is not damaged, its compression ({name}) is not supported here",
        )
    return UserError(f"'{path}' cannot be decoded: {reason}", DAMAGED)


def unsupported(path: str, kind: str) -> UserError:
    """The error for a sound picture that would not be read rightly."""
    return UserError(f"'{path}' is a picture of a kind that is not supported: {kind}", CONVERT)


def _format(data: bytes) -> str | None:
    """The format that a file begins like, of those that are read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)


def _other_picture(data: bytes) -> str | None:
    """The format of a picture in none of those that are read."""
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
        return next((name for name, known in _BRANDS.items() if brands & set(known)), None)
    if b"<svg" in data[:4096]:
        return "SVG"
    return next((name for signature, name in _OTHER_PICTURES.items() if data.startswith(signature)), None)


def _content(data: bytes) -> str:
    """What a file that holds no picture seems to hold, in words."""
    for signature, name in _OTHER.items():
        if data.startswith(signature):
            return name
    if is_film(data):
        return "a video file"
    head = data[:4096]
    try:
        text = head.decode("utf-8", "ignore" if len(data) > len(head) else "strict")
    except UnicodeDecodeError:
        return "data of an unknown format"
    return "data of an unknown format" if any(c < " " and c not in "\t\r\n\f" for c in text) else "text"


def _unsupported_kind(name: str, data: bytes) -> str | None:
    """What kind of PNG, TIFF … a file is if its header is sound, but asks for what no decoder here has."""
    if name == "TIFF":
        kind = _tiff_kind(_tiff_tags(data))
        return f"{kind}, big-endian" if kind and data[:1] == b"M" else kind
    if name == "PNG":
        return "Apple's CgBI variant" if data[12:16] == b"CgBI" else None
    try:
        PIL.Image.OPEN[name][0](io.BytesIO(data), "").close()
    except Exception as error:  # the decoder's reason, which `PIL.Image.open` drops
        return str(error) if _says_unsupported(str(error)) else None
    return None


def _says_unsupported(reason: str) -> bool:
    return any(
        words in reason.lower() for words in ("unsupported", "not supported", "not yet supported", "cannot handle")
    )


def _tiff_tags(data: bytes) -> dict[int, Any]:
    """The tags of a TIFF's first picture as Pillow reads them; none if its header is damaged."""
    try:
        stream = io.BytesIO(data)
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if b"+" in data[2:4] else 8))
        stream.seek(tags.next)
        tags.load(stream)
        return dict(tags)
    except Exception:  # as in `images._opened`: anything may be raised by a damaged header
        return {}


def _tiff_kind(tags: dict[int, Any]) -> str | None:
    """Samples, colours and compression of a TIFF in words; None if its tags say nothing of them."""
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE)
    if not bits or not tags.get(TiffImagePlugin.IMAGEWIDTH) or not tags.get(TiffImagePlugin.IMAGELENGTH):
        return None
    number = _NUMBERS.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "undefined")
    count = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, len(bits))
    samples = f"{count} × {bits[0]}-bit {number} samples"
    names = [
        _enum_name(tag, tags[tag])
        for tag in (TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, TiffImagePlugin.COMPRESSION)
        if tag in tags
    ]
    return ", ".join([samples, *names])


def _enum_name(tag: int, value: int) -> str:
    """TIFF's name of a tag's value, e.g. CMYK; else tag and number."""
    known = TiffTags.lookup(tag)
    return next((name for name, number in known.enum.items() if number == value), f"{known.name} {value}")
