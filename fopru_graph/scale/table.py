"""The rows to work through: pictures of a folder, parquet, or JSON lines; streamed, and found again by their places."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fopru_graph.errors import UserError, first_line
from fopru_graph.scale.parquet import ParquetTable
from fopru_graph.scale.rows import Id, Place, Row, RowError, Table, check_columns, checked_id, is_unicode

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PATH = "path"  # the one column of a folder of pictures: their paths in it


def open_table(over: Path) -> Table:
    """The rows of ``over``: a parquet or JSONL file, or a folder of parquet files or of pictures.

    Raises:
        UserError: there is nothing of that kind, or a file cannot be read.
    """
    if over.is_dir():
        shards = sorted(over.glob("*.parquet"))
        return ParquetTable(shards) if shards else Pictures(over)
    if not over.exists():
        raise UserError(f"there is no file or folder {over}", "give a folder, a .parquet or a .jsonl file with --over")
    if over.suffix == ".parquet":
        return ParquetTable([over])
    if over.suffix in (".jsonl", ".ndjson"):
        return JsonLines(over)
    raise UserError(f"{over} is neither a folder nor .parquet nor .jsonl", "JSON lines are named .jsonl")


class Pictures:
    """The pictures of a folder and the folders in it, in the order of their paths; the only column is ``path``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self, column: str, wanted: Sequence[str]) -> Iterator[tuple[Id, Place]]:
        """The paths in the folder, with ``/`` between names on every system."""
        if other := {column, *wanted} - {PATH}:
            raise UserError(
                f"a folder of pictures has the column {PATH} alone, not {', '.join(sorted(other))}",
                f"write --read image={PATH} --id {PATH}; a question for all is set by --set prompt=TEXT",
            )
        found = False
        for path in self._walk(str(self.folder), ""):
            if not is_unicode(path):
                raise UserError(f"{self.folder}: the name {path!a} is no UTF-8", "rename the file")
            found = True
            yield path, Place(0, 0)
        if not found:
            raise UserError(f"{self.folder} holds no pictures", f"their names end with {' '.join(PICTURES)}")

    def row(self, key: Id, place: Place, wanted: Sequence[str]) -> Row:
        """The path of a picture."""
        return {PATH: key}

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{folder} cannot be listed: {error.strerror}", "check its permissions") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(PICTURES):
                yield prefix + entry.name


class JsonLines:
    """The lines of a JSONL file, each an object; empty lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.folder, self._path = path.parent, path

    def ids(self, column: str, wanted: Sequence[str]) -> Iterator[tuple[Id, Place]]:
        """Ids with offset and size of their lines."""
        columns: set[str] = set()
        offset = count = 0
        try:
            with self._path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        row = self._parsed(line, number)
                        columns |= row.keys()
                        count += 1
                        yield (
                            checked_id(row.get(column), f"{self._path.name} line {number}", column),
                            Place(offset, len(line)),
                        )
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}", "check its permissions") from error
        if not count:
            raise UserError(f"{self._path} has no rows", "it must hold one JSON object a line")
        check_columns(self._path, columns, wanted)

    def row(self, key: Id, place: Place, wanted: Sequence[str]) -> Row:
        """A line."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(place.first)
                row: Row = json.loads(stream.read(place.second))
        except (OSError, ValueError) as error:
            raise RowError(f"{self._path.name}: the row cannot be read any more: {first_line(error)}") from error
        return {name: row.get(name) for name in wanted}

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self._path.name} line {number} is no JSON ({first_line(error)})", "repair the line, or take it out"
            ) from error
        if not isinstance(row, dict):
            raise UserError(
                f"{self._path.name} line {number} holds a {type(row).__name__}, not an object",
                "write one JSON object a line",
            )
        return row
