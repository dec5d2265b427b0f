"""Values in a few words, for errors and records: shapes instead of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

_LONGEST_TEXT = 60
_FIELDS = 6


def describe(value: Any, depth: int = 2) -> str:
    """A short description: ``Tensor (576, 1024) float16``, data classes by name and fields, collections by length."""
    name = type(value).__name__
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]!r}… ({len(value)} characters)"
    if (shape := getattr(value, "shape", None)) is not None and not is_dataclass(value):
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"{name} {tuple(shape)} {dtype}".rstrip()
    if is_dataclass(value) and not isinstance(value, type):
        return f"{name}({_fields(value, depth)})" if depth else name
    if isinstance(value, Mapping):
        return f"{name} of {len(value)}: {', '.join(map(str, list(value)[:_FIELDS]))}" if value else f"empty {name}"
    if isinstance(value, (Sequence, set, frozenset)):
        if not value or not depth:
            return f"{name} of {len(value)}"
        return f"{name} of {len(value)}: {describe(next(iter(value)), depth - 1)}" + (", …" if len(value) > 1 else "")
    return name


def _fields(value: Any, depth: int) -> str:
    shown = [field.name for field in fields(value) if field.repr]
    text = ", ".join(f"{name}={describe(getattr(value, name), depth - 1)}" for name in shown[:_FIELDS])
    return text + (", …" if len(shown) > _FIELDS else "")
