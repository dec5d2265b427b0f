"""Values of a row, checked: a cell that a benchmark cannot use says so instead of turning into a wrong score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class CellError(Exception):
    """One cell is unusable; the message names column and reason."""


def text(row: Mapping[str, Any], column: str) -> str:
    """A text.

    Raises:
        CellError: it is missing, or something else.
    """
    value = _present(row, column)
    if not isinstance(value, str):
        raise CellError(f"column '{column}' holds {_shown(value)}, not text")
    return value


def text_or(row: Mapping[str, Any], column: str, default: str) -> str:
    """A text, or ``default`` where there is none.

    Raises:
        CellError: it is something else.
    """
    return default if row.get(column) in (None, "") else text(row, column)


def texts(row: Mapping[str, Any], column: str, empty: bool = False) -> list[str]:
    """A list of texts, at least one unless ``empty`` is allowed.

    Raises:
        CellError: it is missing, or something else.
    """
    value = _present(row, column)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise CellError(f"column '{column}' holds {_shown(value)}, not a list of texts")
    if not value and not empty:
        raise CellError(f"column '{column}' holds an empty list")
    return list(value)


def index(row: Mapping[str, Any], column: str, count: int) -> int:
    """A whole number from 0 to ``count`` − 1; digits as text are read too, since one data set has them.

    Raises:
        CellError: it is missing, or something else.
    """
    value = _present(row, column)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise CellError(f"column '{column}' holds {_shown(value)}, not the number of an option from 0 to {count - 1}")
    return value


def one_of(row: Mapping[str, Any], column: str, choices: Collection[str]) -> str:
    """One of ``choices``, case and surrounding white space aside.

    Raises:
        CellError: it is missing, or something else.
    """
    value = text(row, column).strip().lower()
    if value not in choices:
        raise CellError(f"column '{column}' holds {_shown(value)}, not {' or '.join(choices)}")
    return value


def _present(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise CellError(f"column '{column}' is missing")
    if row[column] is None:
        raise CellError(f"column '{column}' is empty")
    return row[column]


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
