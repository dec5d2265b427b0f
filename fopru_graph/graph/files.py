"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a temporary file in the same folder and rename it to ``path``; text as UTF-8.

    What is not UTF-8 in the name of a file is written as ``?``: JSON and YAML have no other way.
    """
    if isinstance(data, str):
        data = data.encode(errors="replace")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
