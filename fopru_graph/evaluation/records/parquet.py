"""Parquet files, one row group in memory at a time."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fopru_graph.errors import UserError, first_line
from fopru_graph.evaluation.records.layout import Row
from fopru_graph.evaluation.task import RecordError

if TYPE_CHECKING:
    import pyarrow


class _Group(NamedTuple):
    """Row group ``number`` of a file; ``before`` is the number of the file's rows in earlier groups."""

    file: Path
    number: int
    before: int
    rows: int


class Parquet:
    """The rows of parquet files with equal columns, in the order of ``files``; reads only the ``wanted`` columns.

    Raises:
        UserError: pyarrow is missing, a file is not parquet or cannot be read, or there are no rows.
    """

    def __init__(self, files: Sequence[Path], wanted: Sequence[str], folder: Path) -> None:
        self.name, self.folder, self._wanted = str(files[0]), folder, list(wanted)
        self._columns: set[str] = set()
        self._groups: list[_Group] = []
        self._loaded: tuple[int, pyarrow.Table] | None = None
        for file in files:
            self._add(file)
        self._ends = list(accumulate(group.rows for group in self._groups))
        if not len(self):
            raise UserError(f"'{self.name}' has no rows", "check that the copy is complete")
        self.fingerprint = f"sha256:{_digest(files)}"

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def columns(self, _wanted: Sequence[Sequence[str]]) -> set[str]:
        """Columns of the files."""
        return set(self._columns)

    def holds(self, pictures: Sequence[str]) -> bool:
        """Whether the files hold the bytes of all ``pictures``, by their statistics; else some may be named by path."""
        return all(
            _holds(_open(file).metadata, pictures) for file in dict.fromkeys(group.file for group in self._groups)
        )

    def row(self, index: int) -> Row:
        """One row; raises `RecordError` if its row group is damaged."""
        number, group, offset = self._find(index)
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = None  # frees the old row group before the next one is read
            try:
                self._loaded = number, _open(group.file).read_row_group(group.number, columns=self._wanted)
            except (OSError, ValueError) as error:
                raise RecordError(f"{self.where(index)}: cannot be read: {first_line(error)}") from error
        row: dict[str, Any] = self._loaded[1].slice(offset, 1).to_pylist()[0]
        return row

    def column(self, name: str) -> list[Any]:
        """All values of a column; raises `UserError` if a file is damaged."""
        values: list[Any] = []
        for group in self._groups:
            try:
                values += _open(group.file).read_row_group(group.number, columns=[name]).column(0).to_pylist()
            except (OSError, ValueError) as error:
                raise _damaged(group.file, error) from error
        return values

    def where(self, index: int) -> str:
        """File and row in this file, counted from 1, for messages."""
        _, group, offset = self._find(index)
        return f"{group.file.name} row {group.before + offset + 1}"

    def _find(self, index: int) -> tuple[int, _Group, int]:
        """The row group of a row: its position in the list, itself, and the row's offset in it."""
        number = bisect_right(self._ends, index)
        group = self._groups[number]
        return number, group, index - (self._ends[number] - group.rows)

    def _add(self, file: Path) -> None:
        try:
            opened = _open(file)
            metadata = opened.metadata
            self._columns |= set(opened.schema_arrow.names)
        except (OSError, ValueError) as error:
            raise _damaged(file, error) from error
        before = 0
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            self._groups.append(_Group(file, number, before, rows))
            before += rows


def _holds(metadata: Any, pictures: Sequence[str]) -> bool:
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            column, _, part = chunk.path_in_schema.partition(".")
            without_null = chunk.statistics is not None and chunk.statistics.null_count == 0
            if column in pictures and part != "path" and not (part == "bytes" and without_null):
                return False
    return True


def _open(file: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        hint = "pip install pyarrow, or give JSON lines"
        raise UserError(f"reading '{file}' needs the package pyarrow", hint) from error
    return pyarrow.parquet.ParquetFile(file)


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"'{file}' cannot be read as parquet: {first_line(error)}", "copy or download the file again")


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the digests of the files in order, so that the borders between files count."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
