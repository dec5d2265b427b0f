"""Any value in a few words, for errors, run records and reprs: shapes for numbers, names for files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

FILE = "file"  # in a field's metadata: its text names a file or folder, of which the last part alone is shown
_LONGEST_TEXT, _LONGEST_FIELDS, _MOST_FIELDS = 60, 150, 6


def describe(value: Any, depth: int = 2) -> str:
    """A value in a few words.

    For example ``Tensor (576, 1024) float16``; a data class by its name and fields, a collection by its length.
    """
    name = type(value).__name__
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]!r}… ({len(value)} characters)"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{name}({_described_fields(value, depth)})" if depth else name
    if (shape := getattr(value, "shape", None)) is not None:
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"{name} {tuple(shape)} {dtype}".rstrip()
    if isinstance(size := getattr(value, "size", None), tuple):  # of a picture
        return f"{name} {' × '.join(map(str, size))}"
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, list(value)[:_MOST_FIELDS]))
        return f"{name} of {len(value)}: {keys}" if value else f"empty {name}"
    if isinstance(value, (Sequence, set, frozenset)):
        if not value or not depth:
            return f"{name} of {len(value)}"
        return f"{name} of {len(value)}: {describe(next(iter(value)), depth - 1)}" + (", …" if len(value) > 1 else "")
    return name


class Described:
    """Base of data classes without a repr of their own: what `describe` says, so that a message holds no tensors."""

    def __repr__(self) -> str:
        return describe(self)


def _described_fields(value: Any, depth: int) -> str:
    shown = [field for field in fields(value) if field.repr]
    text = ""
    for index, field in enumerate(shown):
        more = f"{', ' if index else ''}{field.name}={_described_field(value, field, depth)}"
        if index == _MOST_FIELDS or len(text + more) > _LONGEST_FIELDS:
            return f"{text}, …" if index else "…"
        text += more
    return text


def _described_field(value: Any, field: Field[Any], depth: int) -> str:
    content = getattr(value, field.name)
    if field.metadata.get(FILE) and isinstance(content, str):
        content = re.split(r"[/\\]", content.rstrip("/\\"))[-1]
    return describe(content, depth - 1)
