"""What a benchmark expects of its data (`Layout`), and what every kind of data offers (`Source`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]  # column name to value


@dataclass(frozen=True)
class Hub:
    """A split of a data set on the hub; ``ids`` are its names over time, tried in this order."""

    ids: tuple[str, ...]
    split: str
    config: str | None = None


@dataclass(frozen=True)
class Join:
    """Pictures in a second table: that of a record is in the row whose ``id`` equals the record's column ``key``.

    On the hub the table is another ``config``; locally it is parquet files as on the hub, or ``images/<key>.jpg``.
    """

    key: str
    config: str
    split: str


@dataclass(frozen=True)
class Layout:
    """How the rows of a task's data become records.

    Args:
        task: name of the task.
        hub: the data set on the hub.
        required: columns that must exist; each is a tuple of names, one of which is enough.
        prepare: makes of a row what prompt and score need; raises `ColumnError` if a value is unusable.
        optional: further columns that ``prepare`` reads.
        pictures: the columns with the pictures of a prepared record, out of ``picture_columns``.
        picture_columns: all columns that may hold a picture.
        join: where the pictures are, if they are in a table of their own.
        file_names: other names of a local data file than the task's, without suffix.
    """

    task: str
    hub: Hub
    required: tuple[tuple[str, ...], ...]
    prepare: Callable[[Row], dict[str, Any]]
    optional: tuple[str, ...] = ()
    pictures: Callable[[Row], Sequence[str]] = lambda _record: ("image",)
    picture_columns: tuple[str, ...] = ("image",)
    join: Join | None = None
    file_names: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is ever read, each once."""
        required = [name for names in self.required for name in names]
        return tuple(dict.fromkeys([*required, *self.optional, *self.picture_columns]))


class Source(Protocol):
    """Rows that can be read in any order. Rows that were read are not kept."""

    @property
    def name(self) -> str:
        """The path of a file or the name of a data set."""

    @property
    def fingerprint(self) -> str:
        """Identity of the content."""

    @property
    def folder(self) -> Path | None:
        """The only folder whose files rows may name as pictures; None if they may name no files."""

    def __len__(self) -> int:
        """Number of rows."""

    def columns(self, wanted: Sequence[Sequence[str]]) -> set[str]:
        """Columns of the rows. The search may stop when it has found one column of each of ``wanted``."""

    def row(self, index: int) -> Row:
        """One row.

        Raises:
            RecordError: it cannot be read.
        """

    def where(self, index: int) -> str:
        """File and row, counted from 1, for messages, e.g. ``pope.jsonl row 57``."""


class Keyed(Source, Protocol):
    """A source that can read one column alone."""

    def column(self, name: str) -> list[Any]:
        """All values of a column."""


def first_line(error: Exception) -> str:
    """The first line of an error's message; its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
