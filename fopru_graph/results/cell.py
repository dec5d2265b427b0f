"""The results folder of one cell (pipeline × settings × task): its identity, the rows as they come, the merged file.

Every rank appends to a shard of its own, one JSON line a sample, flushed at once; a line that a crash cut short is
sealed and made again. Nothing is overwritten but the merged file and the summary, which appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically

FORMAT = 1
IDENTITY, SHARDS, RESULTS, SUMMARY = "cell.json", "shards", "results.jsonl", "summary.json"
_IDENTIFYING = (
    "format",
    "pipeline",
    "graph",
    "task",
    "scorer",
    "ratio",
    "data",
    "model",
    "weights",
    "dtype",
    "versions",
)
_OTHER = "choose another folder with --out; nothing in this one was changed"

Row = dict[str, Any]


class Cell:
    """One cell's folder.

    Args:
        folder: where; made by `claim`.
        identity: what the rows are of; see `claim`.
        count: number of samples.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], count: int) -> None:
        self.folder, self._identity, self._count = folder, identity, count
        self._places: dict[int, tuple[int, int, bool]] = {}
        self._shards: list[Path] = []
        self.torn = 0

    def claim(self) -> None:
        """Make the folder, or check that what lies there is of the same cell.

        Raises:
            UserError: it holds results of something else (what differs is said), or cannot be written.
        """
        path = self.folder / IDENTITY
        with _writing(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            if not path.exists():
                if any((self.folder / SHARDS).glob("*.jsonl")):
                    raise UserError(f"{self.folder} holds rows but no {IDENTITY}, so nobody knows of what", _OTHER)
                write_atomically(path, (json.dumps(self._identity, indent=1, ensure_ascii=False) + "\n").encode())
                return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before, now = _identifying(found), _identifying(_plain(self._identity))
            different = [key for key in _IDENTIFYING if before[key] != now[key]]
        except (ValueError, AttributeError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}", _OTHER) from error
        if different:
            key = different[0]
            was, is_now = _first_difference(before[key], now[key])
            raise UserError(
                f"{self.folder} holds results of another configuration: {', '.join(different)} differ; "
                f"{key} was {_short(was)}, now it is {_short(is_now)}",
                _OTHER,
            )

    def scan(self) -> None:
        """Read which samples are done, from the shards of all ranks; of several rows of a sample a good one counts."""
        self._places.clear()
        self.torn = 0
        self._shards = sorted((self.folder / SHARDS).glob("rank*.jsonl"))
        for shard, path in enumerate(self._shards):
            with path.open("rb") as stream:
                begin = 0
                for line in stream:
                    self._note(line, shard, begin)
                    begin += len(line)

    def _note(self, line: bytes, shard: int, begin: int) -> None:
        try:
            row = json.loads(line)
            index, good = int(row["index"]), row["status"] == "ok"
        except (ValueError, KeyError, TypeError):
            self.torn += bool(line.strip())
            return
        if 0 <= index < self._count and (index not in self._places or (good and not self._places[index][2])):
            self._places[index] = (shard, begin, good)

    def missing(self, rank: int, world: int, retry: bool) -> array[int]:
        """Samples that rank ``rank`` of ``world`` still has to run; with ``retry`` those that failed too."""
        done = {index for index, (_, _, good) in self._places.items() if good or not retry}
        return array("q", (index for index in range(rank, self._count, world) if index not in done))

    @property
    def done(self) -> int:
        """Number of samples with a row."""
        return len(self._places)

    @contextlib.contextmanager
    def shard(self, rank: int) -> Iterator[Shard]:
        """The shard of one rank, open for appending and locked against other processes.

        Raises:
            UserError: another process is writing it, or it cannot be written.
        """
        path = self.folder / SHARDS / f"rank{rank}.jsonl"
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is writing {path}", "wait for it, or choose another folder with --out"
            ) from None
        try:
            with _writing(self.folder):
                stream = path.open("ab", buffering=0)
            with stream:
                yield Shard(stream, path)
        finally:
            lock.release()

    def rows(self) -> Iterator[Row]:
        """The rows of all samples in their order, read one by one; `scan` first."""
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(path.open("rb")) for path in self._shards]
            for index in sorted(self._places):
                shard, begin, _ = self._places[index]
                streams[shard].seek(begin)
                yield json.loads(streams[shard].readline())

    def merge(self) -> None:
        """Write all rows in the order of the samples into one file.

        Raises:
            UserError: the file cannot be written.
        """
        path = self.folder / RESULTS
        temporary = path.with_suffix(".part")
        with _writing(self.folder), temporary.open("wb") as stream:
            for row in self.rows():
                stream.write(_line(row))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the figures of a whole cell.

        Raises:
            UserError: the file cannot be written.
        """
        with _writing(self.folder):
            text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.folder / SUMMARY, text.encode())


class Shard:
    """The open shard of one rank; unbuffered, so that a written row has left the process and outlives a kill."""

    def __init__(self, stream: FileIO, path: Path) -> None:
        self._stream, self._path = stream, path
        if stream.tell() and not _ends_with_newline(path):
            self._write(b"\n")  # else the next row would be glued to the torn one, and lost with it

    def append(self, row: Row) -> None:
        """Write one row.

        Raises:
            UserError: it cannot be written, e.g. because the disk is full.
        """
        self._write(_line(row))

    def _write(self, data: bytes) -> None:
        with _writing(self._path):
            while data:
                data = data[self._stream.write(data) :]


def _line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """An error of the file system as a message that says what is kept."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"results cannot be written to {folder}: {error.strerror or error}",
            "what was written until now is kept; make room or choose another folder with --out, and run it again",
        ) from error


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _identifying(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part that must not change; the same data may lie elsewhere."""
    data = identity.get("data")
    fingerprint = data.get("fingerprint") if isinstance(data, dict) else data
    return {key: identity.get(key) for key in _IDENTIFYING} | {"data": fingerprint}


def _first_difference(one: Any, other: Any) -> tuple[Any, Any]:
    """The first place where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                was, now = _first_difference(one.get(key), other.get(key))
                return {key: was}, {key: now}
    return one, other


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
