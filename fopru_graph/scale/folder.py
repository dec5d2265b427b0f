"""The folder of a map's results: part files, what they are of, and which run may write them.

``part-00000.parquet`` … hold the rows and nothing else in the folder does; a part appears whole or not at all. Beside
them, in ``_map`` (engines that read folders of parquet pass over names with ``_``):

* ``identity.json``: what the rows are of. A run of anything else is refused.
* ``lock``: held by the driver of a run, released by the system when it is gone.
* ``current``: the name of the run that may write. Workers of another one end when they see it.
* ``runs/<name>/``: what the workers of a run are told, and what they tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from fopru_graph.errors import UserError
from fopru_graph.graph.files import replacing, write_atomically
from fopru_graph.pipeline_map import ERROR
from fopru_graph.results.identity import difference
from fopru_graph.scale.parquet import damaged, open_parquet
from fopru_graph.scale.rows import Id

LEASE = 60.0  # seconds that a worker on another machine has to see that its run is not the current one, and to end
_KEY = b"fopru_graph.identity"
_LOOK = 0.1
ELSEWHERE = "map into another folder with --into; nothing in this one was changed"


class MapFolder:
    """The folder; several processes may hold such an object of one folder."""

    def __init__(self, path: Path) -> None:
        self.path, self._private = path, path / "_map"

    # -- what the rows are of -----------------------------------------------------------------------------------------

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Say what the rows are of (see `results.identity.cell_identity`), or check that it is what is said already.

        Raises:
            UserError: the folder holds rows of something else (the message says what differs), or cannot be written.
        """
        file = self._private / "identity.json"
        with writing(self.path):
            self._private.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                if self.parts():
                    raise UserError(f"{self.path} holds parts but no {file.name}, so nobody knows of what", ELSEWHERE)
                write_atomically(file, json.dumps({"identity": identity}, indent=1) + "\n")
                return
        if different := difference(self._identity(), identity):
            raise UserError(f"{self.path} holds rows of something else: {different}", ELSEWHERE)

    def _identity(self) -> Any:
        file = self._private / "identity.json"
        try:
            return json.loads(file.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be read: {error}", ELSEWHERE) from error

    # -- runs ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def driven(self, name: str, on_wait: Callable[[str], None]) -> Iterator[Path]:
        """Be the one driver of this folder, once the workers of earlier ones are gone; gives the run's folder.

        ``on_wait`` is told what is waited for.

        Raises:
            UserError: another driver works here, or a worker of an earlier run does not end.
        """
        with writing(self.path):
            self._private.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._private / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process maps into {self.path}", "wait for it, or choose another folder with --into"
            ) from None
        try:
            with writing(self.path):
                run = self._private / "runs" / name
                for part in ("state", "workers", "logs"):
                    (run / part).mkdir(parents=True)
                write_atomically(self._private / "current", name)
                self._outlive_others(run, on_wait)
                for aside in self.path.glob(".part-*"):  # of writers that were killed
                    aside.unlink(missing_ok=True)
            yield run
        finally:
            lock.release()

    def is_current(self, run: Path) -> bool:
        """Whether a run may write; if that cannot be read just now, it may."""
        try:
            return (self._private / "current").read_text(encoding="utf-8") == run.name
        except OSError:
            return True

    def retire(self, run: Path) -> None:
        """Let the workers of a run end, wherever they are."""
        with contextlib.suppress(OSError):  # those of this machine are ended as well
            if self.is_current(run):
                write_atomically(self._private / "current", "")

    def _outlive_others(self, run: Path, on_wait: Callable[[str], None]) -> None:
        """Wait until no worker of an earlier run is left, and remove what it told."""
        begin, told = time.monotonic(), False
        while left := [file for file in run.parent.glob("*/workers/*") if _may_live(file, begin)]:
            if time.monotonic() - begin > 2 * LEASE:
                raise UserError(
                    f"a worker of an earlier run still works in {self.path}: {left[0].name}", "end it first"
                )
            if not told and time.monotonic() - begin > 1:
                told = True
                on_wait(f"waiting for workers of an earlier run to end: {', '.join(file.name for file in left)}")
            time.sleep(_LOOK)
        for other in run.parent.iterdir():
            if other != run:
                shutil.rmtree(other, ignore_errors=True)

    # -- parts --------------------------------------------------------------------------------------------------------

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{number:05}.parquet"

    def parts(self) -> dict[int, Path]:
        """The files of all parts by number."""
        found = {path.stem.removeprefix("part-"): path for path in self.path.glob("part-*.parquet")}
        return {int(number): found[number] for number in sorted(found) if number.isdecimal()}

    def rows(self, column: str) -> Iterator[tuple[int, Id, str | None]]:
        """Of every row that is there its part, id (from ``column``) and error.

        Raises:
            UserError: a part cannot be read, or is not of the folder's identity.
        """
        parts = self.parts()
        key = str(self._identity()["key"]) if parts else ""
        for number, path in parts.items():
            again = f"remove {path}; its rows are made again"
            try:
                opened = open_parquet(path)
                if (opened.schema_arrow.metadata or {}).get(_KEY) != key.encode():
                    raise UserError(f"{path} is no part of these results", again)
                table = opened.read(columns=[column, ERROR], use_threads=False)
            except (OSError, ValueError) as error:
                raise UserError(damaged(path, error).message, again) from error
            columns = (table.column(name).to_pylist() for name in (column, ERROR))
            yield from ((number, *row) for row in zip(*columns, strict=True))

    def write(self, number: int, table: Any, key: str) -> None:
        """Write a part: aside, to the disk, then under its name.

        Args:
            number: of the part; one that is there is replaced.
            table: a `pyarrow.Table`.
            key: of the rows' identity.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        import pyarrow.parquet

        with replacing(self.part(number)) as stream:
            pyarrow.parquet.write_table(table.replace_schema_metadata({_KEY: key.encode()}), stream)
            stream.flush()
            os.fsync(stream.fileno())
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, is there after the power fails
        finally:
            os.close(folder)


@contextlib.contextmanager
def registered(run: Path) -> Iterator[None]:
    """Say that this process is a worker of a run, as long as it is."""
    process = psutil.Process()
    file = run / "workers" / f"{socket.gethostname()}-{process.pid}"
    about = {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}
    write_atomically(file, json.dumps(about))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _may_live(worker: Path, begin: float) -> bool:
    """Whether a worker of an earlier run may still write: its process is here and alive, or elsewhere and not silent.

    ``begin`` is when the other run became the current one.
    """
    try:
        about = json.loads(worker.read_text(encoding="utf-8"))
        if about["host"] != socket.gethostname():
            return time.monotonic() - begin < LEASE
        process = psutil.Process(about["pid"])
        return bool(process.create_time() == about["created"]) and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return False


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """An error of the file system as a sentence that says what is kept."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}",
            "finished parts are kept; make room or choose another folder with --into, and run the command again",
        ) from error
