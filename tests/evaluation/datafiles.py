"""Data files for the tests of tasks and records."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image


def png(colour: str | tuple[int, int, int] = "red", side: int = 4, height: int | None = None) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (side, height or side), colour).save(stream, "PNG")
    return stream.getvalue()


def inline(colour: str | tuple[int, int, int] = "red", *size: int) -> dict[str, str]:
    """A picture as JSON lines hold it."""
    return {"bytes": base64.b64encode(png(colour, *size)).decode()}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> str:
    """A JSONL file; texts are written as they are."""
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    return str(path)


def pope_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {"question": f"Is there a dog in picture {number}?", "answer": "yes", "category": "random", "image": inline()}
    return row | changes
