"""What a table of rows is: ids, places at which rows are found again, and the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fopru_graph.errors import UserError

Id = str | int
Row = dict[str, Any]


class Place(NamedTuple):
    """Where a row is: offset and bytes of a line, or number of a file and row in it."""

    first: int
    second: int


class RowError(Exception):
    """A row cannot be read; the message says where and why."""


class Table(Protocol):
    """Rows with columns. ``folder`` is what relative paths in them begin at."""

    folder: Path

    def ids(self, column: str, wanted: Sequence[str]) -> Iterator[tuple[Id, Place]]:
        """Id and place of every row, in their order; one row in memory at a time.

        Raises:
            UserError: a row has no id, there are no rows, a column of ``wanted`` is in none, or a file is damaged.
        """

    def row(self, key: Id, place: Place, wanted: Sequence[str]) -> Row:
        """A row with the columns ``wanted``, of which a line of JSON may lack some.

        Raises:
            RowError: it cannot be read.
        """


def checked_id(value: Any, where: str, column: str) -> Id:
    """An id: a text, or a whole number of 64 bits.

    Raises:
        UserError: it is something else.
    """
    number = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if number or (isinstance(value, str) and value and is_unicode(value)):
        id_: Id = value
        return id_
    shown = "nothing" if value is None else repr(value)[:40]
    raise UserError(f"{where}: the id, column '{column}', holds {shown}", "an id is a text or a whole number; see --id")


def check_columns(source: Path, columns: set[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are not there.

    Raises:
        UserError: there is one.
    """
    if missing := sorted(set(wanted) - columns):
        raise UserError(
            f"{source} has no column {', '.join(missing)}", f"it has {', '.join(sorted(columns)) or 'none'}"
        )


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: it has no half of a surrogate pair, as in the name of a file that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
