"""The records of a benchmark from any kind of data, and the search for its files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError
from fopru_graph.evaluation.records.columns import ColumnError
from fopru_graph.evaluation.records.hub import HubRows
from fopru_graph.evaluation.records.jsonl import JsonLines
from fopru_graph.evaluation.records.layout import Hub, Layout, Row
from fopru_graph.evaluation.records.parquet import Parquet
from fopru_graph.evaluation.records.pictures import picture_file_digest, read_picture
from fopru_graph.evaluation.task import Record, RecordError
from fopru_graph.graph.errors import did_you_mean

if TYPE_CHECKING:
    import PIL.Image

Keyed = HubRows | Parquet  # sources of rows that can also read one column alone
Source = Keyed | JsonLines  # rows that can be read in any order and are not kept

LINES = (".jsonl", ".ndjson")
_KEY = "id"  # the column of a table of pictures that holds the keys of the records


class TableRecords:
    """The first ``limit`` records of a task, or all of them. Records that were read are not kept."""

    def __init__(self, layout: Layout, rows: Source, pictures: Keyed | None, limit: int | None) -> None:
        self._layout, self._rows, self._pictures = layout, rows, pictures
        self._places = list(islice(_places(layout, rows), limit)) if layout.where or layout.each else None
        count = len(rows) if self._places is None else len(self._places)
        self._length = count if limit is None else min(limit, count)
        keys = [] if pictures is None else pictures.column(_KEY)
        self._picture_rows = {key: index for index, key in enumerate(keys)}
        self._names_files = rows.folder is not None and not rows.holds(layout.picture_columns)
        self.source = rows.name
        self.fingerprint = rows.fingerprint + (f" {pictures.fingerprint}" if pictures else "")

    def __len__(self) -> int:
        return self._length

    def key(self, index: int) -> str:
        """The task and the number of the record, from 0."""
        return f"{self._layout.task}/{index}"

    def read(self, index: int) -> Record:
        """See `Records.read`: what the task's ``prepare`` makes of a row, and the undecoded values of its pictures."""
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        row = self._row(index)
        try:
            record = self._layout.prepare(row)
        except ColumnError as error:
            raise RecordError(f"{self._where(index)}: {error}") from error
        pictures = {name: row.get(name) for name in self._layout.pictures(record)}
        key = {join.key: row.get(join.key)} if (join := self._layout.join) else {}
        return record | pictures | key

    def picture_files(self, index: int) -> list[str]:
        """See `Records.picture_files`. The data's own digest covers what lies in it."""
        if not self._names_files:
            return []
        try:
            record = self.read(index)
            values = [value for name in self._layout.pictures(record) for value in self._picture(name, record, "")]
        except RecordError:
            return []
        return [digest for value in values if (digest := picture_file_digest(value, self._rows.folder)) is not None]

    def images(self, index: int, record: Record) -> list[tuple[str, PIL.Image.Image]]:
        """See `Records.images`; a picture's identity is the SHA-256 of its content."""
        where = self._where(index)
        return [
            read_picture(value, column, self._rows.folder, where)
            for column in self._layout.pictures(record)
            for value in self._picture(column, record, where)
        ]

    def _row(self, index: int) -> Row:
        """The row of a record, with its item in the place of the list."""
        if self._places is None:
            return self._rows.row(index)
        number, item = self._places[index]
        row = self._rows.row(number)
        return row if item is None else {**row, str(self._layout.each): row[str(self._layout.each)][item]}

    def _where(self, index: int) -> str:
        return self._rows.where(index if self._places is None else self._places[index][0])

    def _picture(self, column: str, record: Record, where: str) -> Sequence[Any]:
        """The undecoded pictures in a record's column: its own, that in the table of pictures, or a file's name."""
        join = self._layout.join
        if record[column] is not None or join is None:
            return record[column] if isinstance(record[column], list) and record[column] else [record[column]]
        key = record[join.key]
        if key is None:
            raise RecordError(f"{where}: picture 'image' is missing, and so is '{join.key}'")
        if self._pictures is None:
            return [f"images/{key}.jpg"]
        if key not in self._picture_rows:
            raise RecordError(f"{where}: there is no picture whose {_KEY} is {key!r} in {self._pictures.name}")
        return [self._pictures.row(self._picture_rows[key])["image"]]


def _places(layout: Layout, rows: Source) -> Iterator[tuple[int, int | None]]:
    """Row and item of every record. What cannot be read is a record, whose reading says why."""
    names = [*layout.where, *([layout.each] if layout.each else [])]
    for number, values in enumerate(_chosen(rows, names)):
        if values is None:
            yield number, None
            continue
        if any(values[name] != wanted for name, wanted in layout.where.items()):
            continue
        items = values[layout.each] if layout.each else None
        if isinstance(items, list | tuple) and items:
            yield from ((number, item) for item in range(len(items)))
        else:
            yield number, None


def _chosen(rows: Source, names: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """The values of some columns, row by row; None for a row that cannot be read."""
    if not isinstance(rows, JsonLines):
        for values in zip(*map(rows.column, names), strict=True):
            yield dict(zip(names, values, strict=True))
        return
    for number in range(len(rows)):
        try:
            row = rows.row(number)
        except RecordError:
            yield None
        else:
            yield {name: row.get(name) for name in names}


def open_records(layout: Layout, data: str | None, limit: int | None) -> TableRecords:
    """Records from the hub, or from the local file or folder ``data``.

    A folder may hold ``<task>.jsonl``, ``<task>.parquet``, or the parquet files of a copy of the hub's data set.

    Raises:
        UserError: there is no such data, it cannot be read, or no row has a required column.
    """
    join = layout.join
    pictures: Keyed | None = None
    if data is None:
        if layout.hub is None:
            raise UserError(f"the task '{layout.task}' names no data", "write data: {file: …} in it, or give --data")
        rows: Source = HubRows(layout.task, layout.hub, layout.columns)
        if join is not None:
            pictures = HubRows(layout.task, Hub(layout.hub.ids, join.split, join.config), (_KEY, "image"))
    else:
        rows = _open_local(layout, Path(data))
        if join is not None and (files := _snapshot(Path(data), join.config, join.split)):
            pictures = Parquet(files, (_KEY, "image"), Path(data))
            _check_columns(pictures, ((_KEY,), ("image",)))
    _check_columns(rows, layout.required)
    records = TableRecords(layout, rows, pictures, limit)
    if not len(records):
        wanted = ", ".join(f"{name}: {value}" for name, value in layout.where.items())
        raise UserError(
            f"'{rows.name}' has no row with {wanted}", "give other data, or change 'where' in the task's file"
        )
    return records


def _open_local(layout: Layout, path: Path) -> Source:
    if path.is_dir():
        files = _search(layout, path)
        folder = path
    else:
        if not path.is_file():
            raise UserError(f"there is no file or folder '{path}'", _near(path))
        files, folder = [path], path.parent
    suffix = files[0].suffix.lower()
    if suffix in LINES:
        return JsonLines(files[0])
    if suffix == ".parquet":
        return Parquet(files, layout.columns, folder)
    raise UserError(f"'{path}' is no data file that can be read", "give a .jsonl or .parquet file, or a folder")


def _search(layout: Layout, folder: Path) -> list[Path]:
    """The data files of a folder: a file named after the task, else the hub's split, else all parquet files."""
    stems = (layout.task, *layout.file_names)
    for name in [f"{stem}{suffix}" for stem in stems for suffix in (*LINES, ".parquet")]:
        if (folder / name).is_file():
            return [folder / name]
    hub = layout.hub
    for files in (_snapshot(folder, hub.config, hub.split) if hub else [], sorted(folder.glob("*.parquet"))):
        if files:
            return files
    where = f"{hub.config or 'data'}/{hub.split}-*.parquet or " if hub else ""
    hint = f"it may hold {layout.task}.jsonl, {layout.task}.parquet, {where}*.parquet"
    raise UserError(f"the folder '{folder}' holds no data of '{layout.task}'", hint)


def _snapshot(folder: Path, config: str | None, split: str) -> list[Path]:
    """The parquet files of a split in a copy of a hub's repository."""
    for subfolder in (config, "data", ".") if config else ("data", "."):
        if files := sorted((folder / str(subfolder)).glob(f"{split}-*.parquet")):
            return files
    return []


def _check_columns(rows: Source, required: Sequence[Sequence[str]]) -> None:
    """Refuse data in which no row has a required column.

    Raises:
        UserError: a column is missing; the message names the columns that exist.
    """
    columns = rows.columns(required)
    missing = [names for names in required if not columns.intersection(names)]
    if not missing:
        return
    close = next((hint for names in missing for name in names if (hint := did_you_mean(name, sorted(columns)))), None)
    listed = ", ".join(" or ".join(f"'{name}'" for name in names) for names in missing)
    known = f"its columns are {', '.join(sorted(columns))}" if columns else _first_failure(rows)
    raise UserError(f"'{rows.name}' lacks {listed}", f"{close} {known}" if close else known)


def _first_failure(rows: Source) -> str:
    try:
        rows.row(0)
    except RecordError as error:
        return str(error)
    return "its rows are empty"


def _near(path: Path) -> str:
    try:
        close = did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        close = None
    return close or "check the name and the current folder"
