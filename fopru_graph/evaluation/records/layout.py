"""What a benchmark expects of its data: where it is, its columns, and how a row becomes a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
