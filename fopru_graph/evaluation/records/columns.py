"""Values of a row, checked: what a benchmark cannot use is an error, instead of a wrong score.

Every function raises `ColumnError` if the column is missing or its value is something else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any


class ColumnError(Exception):
    """The value of one column is unusable; the message names column and reason."""


def text(row: Mapping[str, Any], column: str) -> str:
    """A text."""
    value = _present(row, column)
    if not isinstance(value, str):
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not text")
    return value


def text_or(row: Mapping[str, Any], column: str, default: str) -> str:
    """A text, or ``default`` if it is missing or empty."""
    return default if row.get(column) in (None, "") else text(row, column)


def texts(row: Mapping[str, Any], column: str, empty: bool = False) -> list[str]:
    """A list of texts, at least one unless ``empty`` is allowed."""
    value = _present(row, column)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not a list of texts")
    if not value and not empty:
        raise ColumnError(f"column '{column}' holds an empty list")
    return list(value)


def index(row: Mapping[str, Any], column: str, count: int) -> int:
    """A whole number from 0 to ``count`` − 1. It may be text, as it is in one data set."""
    value = _present(row, column)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not 0 <= value < count:
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not the number of an option from 0 to {count - 1}")
    return value


def one_of(row: Mapping[str, Any], column: str, choices: Collection[str]) -> str:
    """One of ``choices``; case and surrounding white space do not count."""
    value = text(row, column).strip().lower()
    if value not in choices:
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not {' or '.join(choices)}")
    return value


def whole(row: Mapping[str, Any], column: str) -> int:
    """A whole number; it may be text."""
    value = _present(row, column)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if type(value) is not int:
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not a whole number")
    return value


def numbers(row: Mapping[str, Any], column: str, count: int) -> list[float]:
    """A list of ``count`` finite numbers."""
    value = _present(row, column)
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(type(item) in (int, float) and math.isfinite(item) for item in value):
        raise ColumnError(f"column '{column}' holds {_shown(value)}, not a list of {count} numbers")
    return [float(item) for item in value]


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path of names between dots, through objects and lists of objects; None where there is none."""
    first, _, rest = path.partition(".")
    value = row.get(first)
    if not rest:
        return value
    if isinstance(value, list | tuple):
        return [at_path(item, rest) if isinstance(item, Mapping) else None for item in value]
    return at_path(value, rest) if isinstance(value, Mapping) else None


def _present(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise ColumnError(f"column '{column}' is missing")
    if row[column] is None:
        raise ColumnError(f"column '{column}' is empty")
    return row[column]


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
