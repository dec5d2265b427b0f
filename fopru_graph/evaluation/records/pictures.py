"""A picture in a row: a file beside the data, bytes, or base64 text; decoded safely or refused with a reason."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import RecordError

if TYPE_CHECKING:
    import PIL.Image

_LONGEST_PATH = 1024  # characters; longer text is a picture in base64


def read_picture(value: Any, column: str, folder: Path | None, where: str) -> tuple[str, PIL.Image.Image]:
    """Decode a picture; returns the identity of its content (SHA-256 in hex) and the RGB picture.

    Args:
        value: a path relative to ``folder``, a ``data:`` address, long base64 text, bytes, or a mapping with ``bytes``
            (bytes or base64) or ``path``.
        column: the column of ``value``, for messages.
        folder: where files may lie, subfolders included; None if no file may be named.
        where: file and row of ``value``, for messages.

    Raises:
        RecordError: there is no picture, it lies outside ``folder``, or it cannot be decoded.
    """
    from fopru_graph.lvlm.inputs.images import decode_image, fingerprint, load_image

    try:
        content = _content(value)
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest(), decode_image(content, column).picture
        path = _contained(content, folder)
        return fingerprint(path), load_image(path).picture
    except _PictureError as error:
        raise RecordError(f"{where}: picture '{column}' {error}") from error
    except UserError as error:
        hint = f" ({error.hint})" if error.hint else ""
        subject = "picture" if error.message.startswith("'") else f"picture '{column}':"
        raise RecordError(f"{where}: {subject} {error.message}{hint}") from error


def picture_file_digest(value: Any, folder: Path | None) -> str | None:
    """SHA-256 of the file that a picture's value names, ``missing`` if it cannot be read; None if it names none."""
    from fopru_graph.lvlm.inputs.images import fingerprint

    try:
        content = _content(value)
        return fingerprint(_contained(content, folder)) if isinstance(content, str) else None
    except _PictureError:
        return None


class _PictureError(Exception):
    """What is wrong with a picture, as the end of a sentence."""


def _content(value: Any) -> bytes | str:
    """The bytes of a picture, or the name of its file."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else _inline(value["bytes"])
    if value is None or value == "":
        raise _PictureError("is missing")
    if isinstance(value, str) and (value.startswith("data:") or len(value) > _LONGEST_PATH):
        return _inline(value)
    if isinstance(value, bytes | str):
        return value
    raise _PictureError(f"is a {type(value).__name__}, neither a path nor base64 text nor bytes")


def _inline(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _PictureError(f"has bytes that are a {type(value).__name__}, not base64 text")
    if value.startswith("data:"):
        head, comma, value = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise _PictureError("is a data: address without base64")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _PictureError(f"is no base64 text: {error}") from error


def _contained(name: str, folder: Path | None) -> str:
    """The real path of a file, which must lie in ``folder`` after its links are resolved."""
    if folder is None:
        raise _PictureError(f"is named as '{name}', but its bytes are not in the data")
    if name.startswith(("http://", "https://")):
        raise _PictureError(f"is an address, '{name}'; nothing is fetched here")
    root = os.path.realpath(folder)
    try:
        path = os.path.realpath(os.path.join(root, name))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _PictureError(f"has no usable path: {error}") from error
    if os.path.commonpath([root, path]) != root:
        raise _PictureError(f"is '{name}', outside of the folder of the data")
    return path
