"""Which file a text means: one rule for pipelines, pictures, videos and models. It reads no file's content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

# A bundled picture, an object that was given in Python, an address.
_NO_PATH = re.compile(r"(demo|given):|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SURELY = re.compile(r"\.{0,2}[/\\]|~")  # what cannot be a name: ./folder, ../folder, /folder, ~/folder


def local_path(text: str) -> str:
    """The text with ``~`` as the user's home folder and a ``file://`` URL as its path."""
    if text.lower().startswith("file:/"):  # one slash is what pathlib makes of it
        url = urlsplit(text)
        return unquote(url.path) if url.netloc in ("", "localhost") else text
    return os.path.expanduser(text)


def absolute_path(text: str, folder: Path | None = None, *, or_name: bool = False) -> str:
    """The absolute path that a text means; what is no path stays as it is: ``demo:NAME``, an address, an empty text.

    Args:
        text: a path, with ``~`` or as a ``file://`` URL if one likes.
        folder: what a relative path is relative to; the current folder without it.
        or_name: the text may as well be a name, e.g. of a model on the hub, so it is a path only if it begins with
            ``/``, ``./``, ``../`` or ``~``, or if there is a folder of that name.
    """
    path = local_path(text)
    if not path or "\0" in path or _NO_PATH.match(path):
        return text
    base = os.path.abspath(folder or "")
    found = os.path.join(base, path.removeprefix("./"))
    return found if not or_name or path != text or _SURELY.match(path) or os.path.isdir(found) else text
