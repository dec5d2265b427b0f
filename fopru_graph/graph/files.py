"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a file beside ``path`` that takes its name at the end; several processes may write the same path.

    A device or pipe, such as ``/dev/null``, is written to: renaming a file over it would take it away.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        with path.open("wb") as stream:
            yield stream
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a temporary file in the same folder and rename it to ``path``; text as UTF-8.

    What is not UTF-8 in the name of a file is written as ``?``: JSON and YAML have no other way.
    """
    with replacing(path) as stream:
        stream.write(data.encode(errors="replace") if isinstance(data, str) else data)
