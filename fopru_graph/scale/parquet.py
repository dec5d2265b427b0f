"""Rows of parquet files, read forward a few at a time, whatever the size of their row groups."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError, first_line
from fopru_graph.scale.rows import Id, Place, Row, RowError, check_columns, checked_id

_ROWS = 64  # that are decoded together: a row may hold a picture
_IDS = 8192
_BUFFER = 2**20  # bytes of a column that are read at a time


class ParquetTable:
    """The rows of parquet files with equal columns, in the order of ``files``.

    Raises:
        UserError: a file is no parquet, or cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.folder, self._files = files[0].parent, list(files)
        self._ends = [_group_ends(file) for file in files]  # for each file the numbers of rows up to its row groups
        self._bad: dict[tuple[int, int], tuple[int, str]] = {}  # the first unreadable row of a row group, and why
        self._open: tuple[tuple[int, int, tuple[str, ...]], Iterator[Any]] | None = None  # of what, and the batches
        self._batch: tuple[int, Any] = (0, None)  # number of its first row, and the rows

    def ids(self, column: str, wanted: Sequence[str]) -> Iterator[tuple[Id, Place]]:
        """Ids with numbers of file and row."""
        count = 0
        for number, file in enumerate(self._files):
            try:
                opened = open_parquet(file)
                check_columns(file, set(opened.schema_arrow.names), [column, *wanted])
                row = 0
                for batch in opened.iter_batches(_IDS, columns=[column], use_threads=False):
                    for value in batch.column(0).to_pylist():
                        yield checked_id(value, f"{file.name} row {row + 1}", column), Place(number, row)
                        row += 1
            except (OSError, ValueError) as error:
                raise damaged(file, error) from error
            count += row
        if not count:
            raise UserError(f"{self._files[0]} has no rows", "check that the copy is complete")

    def row(self, key: Id, place: Place, wanted: Sequence[str]) -> Row:
        """A row; reads on from the one before if it can."""
        file, row = place
        group = bisect_right(self._ends[file], row)
        first = self._ends[file][group - 1] if group else 0
        bad = self._bad.get((file, group))
        if bad is None or row < bad[0]:
            try:
                self._read_up_to(file, group, first, row, tuple(wanted))
                start, batch = self._batch
                found: Row = batch.slice(row - start, 1).to_pylist()[0]
                return found
            except (OSError, ValueError) as error:
                start, batch = self._batch
                bad = self._bad[file, group] = (start + (batch.num_rows if batch is not None else 0), first_line(error))
                self._open = None
        raise RowError(f"{self._files[file].name} row {row + 1}: cannot be read: {bad[1]}")

    def _read_up_to(self, file: int, group: int, first: int, row: int, wanted: tuple[str, ...]) -> None:
        """Read batches of a row group until ``_batch`` holds the row."""
        key = (file, group, wanted)
        if self._open is None or self._open[0] != key or row < self._batch[0]:
            self._batch = (first, None)
            opened = open_parquet(self._files[file])
            batches = opened.iter_batches(_ROWS, row_groups=[group], columns=list(wanted), use_threads=False)
            self._open = key, batches
        start, batch = self._batch
        while batch is None or row >= start + batch.num_rows:
            start += batch.num_rows if batch is not None else 0
            self._batch = (start, None)  # frees the rows before the next ones are read
            batch = next(self._open[1], None)
            if batch is None:
                raise ValueError("the row group ends before it")
            self._batch = (start, batch)


def open_parquet(file: Path) -> Any:
    """A parquet file whose columns are read piece by piece.

    Raises:
        UserError: pyarrow is missing.
        OSError, ValueError: it is no parquet file.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise needs_pyarrow() from error
    return pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)


def needs_pyarrow() -> UserError:
    """Why `fopru-graph map` cannot work, and what to do."""
    return UserError("map writes parquet files and needs the package pyarrow", "pip install pyarrow")


def damaged(file: Path, error: Exception) -> UserError:
    """A file that is no parquet, or not any more, in a sentence."""
    return UserError(f"{file} cannot be read as parquet: {first_line(error)}", "copy or download the file again")


def _group_ends(file: Path) -> list[int]:
    try:
        metadata = open_parquet(file).metadata
    except (OSError, ValueError) as error:
        raise damaged(file, error) from error
    return list(accumulate(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)))
