"""What a benchmark expects of its data, and what every kind of data offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Hub:
    """A split of a data set on the hub; ``ids`` are the names it has gone by, tried in this order."""

    ids: tuple[str, ...]
    split: str
    config: str | None = None


@dataclass(frozen=True)
class Join:
    """Pictures in a table of their own: the row whose ``id`` is the record's column ``key``.

    On the hub it is another ``config``; locally the same folder of parquet files, or ``images/<key>.jpg``.
    """

    key: str
    config: str
    split: str


@dataclass(frozen=True)
class Layout:
    """How the rows of a task's data become records.

    ``required`` lists columns, each as the names of which one is enough. ``prepare`` makes of a row what prompt and
    score need, and raises `CellError` where a value is unusable. ``pictures`` names the columns that hold the pictures
    of a prepared record, out of ``picture_columns``. ``file_names`` are the stems looked for in a folder.
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
    """Rows that can be read in any order; reading one does not keep it."""

    @property
    def name(self) -> str:
        """A file's path or a data set's name."""

    @property
    def fingerprint(self) -> str:
        """Identity of the content."""

    @property
    def folder(self) -> Path | None:
        """The only folder in which pictures may be named, or None where none may be."""

    def __len__(self) -> int:
        """Number of rows."""

    def columns(self, wanted: Sequence[Sequence[str]]) -> set[str]:
        """Columns that some row has; it may stop looking once it has found one of each of ``wanted``."""

    def row(self, index: int) -> Row:
        """One row.

        Raises:
            RecordError: it cannot be read.
        """

    def where(self, index: int) -> str:
        """File and row, counted from 1, for messages."""


class Keyed(Source, Protocol):
    """A source of which one column can be read alone."""

    def column(self, name: str) -> list[Any]:
        """All values of a column."""


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
