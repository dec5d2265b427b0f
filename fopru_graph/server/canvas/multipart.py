"""Forms with a file, as a browser sends them."""

from __future__ import annotations

import re
from email.message import Message

_PARTS = 16  # of a form; an upload has four


def parts_of(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a form by name; of a file, its content.

    Raises:
        ValueError: it is no form.
    """
    head = Message()
    head["Content-Type"] = content_type
    boundary = head.get_param("boundary")
    if not isinstance(boundary, str) or not re.fullmatch(r"[\w'()+,./:=? -]{1,70}", boundary):
        raise ValueError("the form has no boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(), _PARTS)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("the form has no end, or too many fields")
    found = {}
    for piece in pieces[1:-1]:
        described, empty, content = piece.partition(b"\r\n\r\n")
        if not empty:
            raise ValueError("a field of the form has no head")
        found[_name_of(described)] = content
    return found


def file_name(body: bytes) -> str:
    """What the browser called the file of a form."""
    match = re.search(rb'filename="([^"\r\n]{0,300})"', body[:4096])
    return match[1].decode(errors="replace") if match else ""


def _name_of(described: bytes) -> str:
    match = re.search(rb'[; ]name="([^"\r\n]{1,80})"', described[:4096])
    if match is None:
        raise ValueError("a field of the form has no name")
    return match[1].decode(errors="replace")
