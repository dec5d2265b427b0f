"""What a benchmark expects of its data: where it is, its columns, and how a row becomes a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        hub: the data set on the hub, if there is one.
        required: columns that must exist; each is a tuple of names, one of which is enough.
        prepare: makes of a row what prompt and score need; raises `ColumnError` if a value is unusable.
        optional: further columns that ``prepare`` reads.
        pictures: the columns with the pictures of a prepared record, out of ``picture_columns``.
        picture_columns: all columns that may hold a picture.
        join: where the pictures are, if they are in a table of their own.
        file_names: other names of a local data file than the task's, without suffix.
        where: only rows whose columns have these values become records.
        each: a column with a list; every item of it makes a record, in which the item stands in the list's place.
    """

    task: str
    hub: Hub | None
    required: tuple[tuple[str, ...], ...]
    prepare: Callable[[Row], dict[str, Any]]
    optional: tuple[str, ...] = ()
    pictures: Callable[[Row], Sequence[str]] = lambda _record: ("image",)
    picture_columns: tuple[str, ...] = ("image",)
    join: Join | None = None
    file_names: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    each: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is ever read, each once."""
        required = [name for names in self.required for name in names]
        chosen = [*self.where, *([self.each] if self.each else [])]
        return tuple(dict.fromkeys([*required, *self.optional, *self.picture_columns, *chosen]))
