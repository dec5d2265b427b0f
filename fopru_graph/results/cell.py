"""The results folder of one cell (pipeline × settings × task) as it is written: identity, shards, merged file, summary.

Every rank appends to a shard of its own, one JSON line a sample, flushed at once. A line that a crash cut short is
ended with a newline and its sample is run again. Only the merged file and the summary are ever overwritten, and they
appear whole or not at all. `fopru_graph.results.schema` says what is in the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from fopru_graph.errors import UserError
from fopru_graph.graph.files import replacing, write_atomically
from fopru_graph.results.identity import difference
from fopru_graph.results.schema import IDENTITY, RESULTS, SHARDS, SUMMARY

REFUSED = "holds results of another configuration"  # in the error of a folder that `--replace` makes anew
_ELSEWHERE = "choose another folder with --out; nothing in this one was changed"
_REPLACE = "`eval` and `sweep` make them anew with --replace; else " + _ELSEWHERE


class _Position(NamedTuple):
    """Where the row of a sample begins, and whether the sample succeeded."""

    shard: int
    offset: int
    ok: bool


class Cell:
    """The folder of one cell. Rows are JSON objects of `schema.Row`.

    Args:
        folder: made by `claim`.
        identity: what the rows are of: an object of `schema.Identity`.
        count: number of samples.
        picture_files: the digests of a sample's picture files; a row of other pictures does not count.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        count: int,
        picture_files: Callable[[int], Sequence[str]] = lambda _index: (),
    ) -> None:
        self.folder, self._identity, self._count = folder, identity, count
        self._picture_files = picture_files
        self._positions: dict[int, _Position] = {}
        self._shards: list[Path] = []
        self.torn = 0  # lines that are no row

    def claim(self, replace: bool = False) -> None:
        """Make the folder, or check that its results are of the same cell; ``replace`` removes them if they are not.

        Raises:
            UserError: it holds results of another cell (the message says what differs), or cannot be written.
        """
        path = self.folder / IDENTITY
        with _writing(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            rows = any((self.folder / SHARDS).glob("*.jsonl"))  # asked first: others write the identity before
            if not path.exists():
                if rows:
                    raise UserError(f"{self.folder} holds rows but no {IDENTITY}, so nobody knows of what", _ELSEWHERE)
                write_atomically(path, json.dumps(self._identity, indent=1, ensure_ascii=False) + "\n")
                return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except KeyError as error:
            raise UserError(
                f"{self.folder} holds results of an earlier version, which did not record all that they follow from",
                _ELSEWHERE,
            ) from error
        except (ValueError, TypeError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}", _ELSEWHERE) from error
        different = difference(before, self._identity["identity"])
        if different and not replace:
            raise UserError(f"{self.folder} {REFUSED}: {different}", _REPLACE)
        if different:
            self._remove()
            self.claim()

    def _remove(self) -> None:
        """Remove all results, unless a process is writing some."""
        with _writing(self.folder), contextlib.ExitStack() as held:
            for path in (self.folder / SHARDS).glob("rank*.jsonl"):
                held.enter_context(_locked(path))
            shutil.rmtree(self.folder)

    def scan(self) -> None:
        """Read which samples are done, from the shards of all ranks; a successful row goes before an error row."""
        self._positions.clear()
        self.torn = 0
        self._shards = sorted((self.folder / SHARDS).glob("rank*.jsonl"))
        for shard, path in enumerate(self._shards):
            with path.open("rb") as stream:
                offset = 0
                for line in stream:
                    self._scan_line(line, shard, offset)
                    offset += len(line)

    def _scan_line(self, line: bytes, shard: int, offset: int) -> None:
        try:
            row = json.loads(line)
            index, ok = int(row["index"]), row["status"] == "ok"
        except (ValueError, KeyError, TypeError):
            self.torn += bool(line.strip())
            return
        known = self._positions.get(index)
        if not 0 <= index < self._count or (known is not None and (known.ok or not ok)):
            return
        if row.get("picture_files", []) == list(self._picture_files(index)):
            self._positions[index] = _Position(shard, offset, ok)

    def missing(self, rank: int, world: int, retry: bool) -> array[int]:
        """Indices of the samples that this rank of ``world`` still has to run; with ``retry`` the failed ones too."""
        done = {index for index, position in self._positions.items() if position.ok or not retry}
        return array("q", (index for index in range(rank, self._count, world) if index not in done))

    @property
    def done(self) -> int:
        """Number of samples with a row."""
        return len(self._positions)

    @contextlib.contextmanager
    def shard(self, rank: int) -> Iterator[Shard]:
        """The shard of a rank, open for appending and locked against other processes.

        Raises:
            UserError: another process is writing the shard, or it cannot be written.
        """
        path = self.folder / SHARDS / f"rank{rank}.jsonl"
        with _locked(path):
            with _writing(self.folder):
                stream = path.open("a+b", buffering=0)
            with stream:
                yield Shard(stream, path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in the order of their samples, read one at a time; call `scan` first."""
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(path.open("rb")) for path in self._shards]
            for index in sorted(self._positions):
                position = self._positions[index]
                streams[position.shard].seek(position.offset)
                yield json.loads(streams[position.shard].readline())

    def merge(self) -> None:
        """Write all rows into one file, in the order of their samples.

        Raises:
            UserError: the file cannot be written.
        """
        with _writing(self.folder), replacing(self.folder / RESULTS) as stream:
            for row in self.rows():
                stream.write(_line(row))
            stream.flush()
            os.fsync(stream.fileno())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the figures of the finished cell, an object of `schema.Summary`.

        Raises:
            UserError: the file cannot be written.
        """
        with _writing(self.folder):
            text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.folder / SUMMARY, text)


@contextlib.contextmanager
def _locked(shard: Path) -> Iterator[None]:
    lock = FileLock(shard.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another process is writing {shard}", "wait for it, or choose another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


class Shard:
    """The open shard of a rank; unbuffered, so that a written row outlives a kill of the process."""

    def __init__(self, stream: FileIO, path: Path) -> None:
        self._stream, self._path = stream, path
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                self._write(b"\n")  # else the next row would join the torn line and be lost with it

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            UserError: the row cannot be written, e.g. because the disk is full.
        """
        self._write(_line(row))

    def _write(self, data: bytes) -> None:
        with _writing(self._path):
            while data:
                data = data[self._stream.write(data) :]


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode(errors="replace")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into a message that says what is kept."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"results cannot be written to {folder}: {error.strerror or error}",
            "what was written until now is kept; make room or choose another folder with --out, and run it again",
        ) from error
