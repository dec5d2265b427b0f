"""JSON lines: one object per line; the offsets of the lines are kept, so that rows can be read in any order."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fopru_graph.errors import UserError
from fopru_graph.evaluation.records.layout import Row
from fopru_graph.evaluation.task import RecordError

MAX_LINE = 256 * 2**20  # bytes of one record with its pictures
_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"


class JsonLines:
    """The rows of a JSONL file; each takes 16 bytes of memory. Empty lines are skipped.

    Raises:
        UserError: the file cannot be read, has no rows, or is one JSON array.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.folder, self._path = str(path), path.parent, path
        self._starts, self._ends = array("Q"), array("Q")
        self._empty = array("Q")  # for every empty line the number of rows before it
        digest = hashlib.sha256()
        try:
            with path.open("rb") as stream:
                for start, end, blank in _lines(stream, digest):
                    if blank:
                        self._empty.append(len(self._starts))
                    else:
                        self._starts.append(start)
                        self._ends.append(end)
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror or error}", "check its permissions") from error
        if not self._starts:
            raise UserError(f"'{path}' has no rows", "it must hold one JSON object a line")
        if self._bytes(0, 1).startswith(b"["):
            raise UserError(
                f"'{path}' is a JSON array, not JSON lines", f"convert it: jq -c '.[]' {path.name} > x.jsonl"
            )
        self.fingerprint = f"sha256:{digest.hexdigest()}"

    def __len__(self) -> int:
        return len(self._starts)

    def columns(self, wanted: Sequence[Sequence[str]]) -> set[str]:
        """Columns of the first rows, until there is one column of each of ``wanted``."""
        columns: set[str] = set()
        for index in range(len(self)):
            try:
                columns |= self.row(index).keys()
            except RecordError:
                continue
            if all(columns.intersection(names) for names in wanted):
                break
        return columns

    def holds(self, _pictures: Sequence[str]) -> bool:
        """No: any row may name its pictures by path."""
        return False

    def row(self, index: int) -> Row:
        """One row; raises `RecordError` if the line is no JSON object."""
        size = self._ends[index] - self._starts[index]
        if size > MAX_LINE:
            raise RecordError(f"{self.where(index)}: the line has {size >> 20} MiB, more than {MAX_LINE >> 20}")
        try:
            value: Any = json.loads(self._bytes(index, size).removeprefix(_BOM))
        except (ValueError, RecursionError) as error:  # ValueError: also text that is no UTF-8
            reason = str(error) or type(error).__name__
            raise RecordError(f"{self.where(index)}: the line is no JSON ({reason})") from error
        except OSError as error:
            raise RecordError(f"{self.where(index)}: cannot be read: {error.strerror or error}") from error
        if not isinstance(value, dict):
            raise RecordError(f"{self.where(index)}: the line holds a {type(value).__name__}, not an object")
        return value

    def where(self, index: int) -> str:
        """File and line, counted from 1, for messages, e.g. ``pope.jsonl row 57``."""
        return f"{self._path.name} row {index + 1 + bisect_right(self._empty, index)}"

    def _bytes(self, index: int, size: int) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(self._starts[index])
            return stream.read(size)


def _lines(stream: BinaryIO, digest: Any) -> Iterator[tuple[int, int, bool]]:
    """Start, end and emptiness of every line; reads chunk by chunk and updates ``digest`` with the whole file."""
    start, offset, blank = 0, 0, True
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        head = 0
        while (newline := chunk.find(b"\n", head)) >= 0:
            yield start, offset + newline, blank and not chunk[head:newline].strip()
            start, head, blank = offset + newline + 1, newline + 1, True
        blank = blank and not chunk[head:].strip()
        offset += len(chunk)
    if not blank:
        yield start, offset, False
