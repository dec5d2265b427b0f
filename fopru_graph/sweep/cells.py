"""The cells of a sweep and their states, which any process can tell from the sweep's folder alone.

A cell is a pipeline with its settings on a task. Three things in the sweep's folder say where it stands:

* ``<label>/summary.json`` holds its figures, and the identity of what they are figures of.
* ``attempts/<label>.json`` is its `Record`: how often it was started, and how the last attempt ended.
* ``attempts/<label>.lock`` is locked while it runs. Its worker and its processes share the lock, and the system
  releases it when the last of them is gone, by kill -9 too: nothing has to be cleaned up.

A cell is ``running`` if its lock is held; ``done`` if its summary has the identity that its record asks for; ``failed``
if its last attempt failed, or all of its samples; ``lost`` if its worker died in the middle of the last of
`MAX_ATTEMPTS`; else ``pending``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.results.cell import SUMMARY
from fopru_graph.results.schema import failures

ATTEMPTS, LOGS = "attempts", "logs"
FORMAT = 1  # of a record
MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Cell:
    """A planned cell.

    Args:
        label: the name of its results folder.
        argv: its command.
        request: digest of what the command asks for; records of another digest are not of this cell.
        identity: the identity that its results must have. May take seconds, since it reads weights and data. None in
            the tasks of a Slurm array, which never judge results of earlier runs.
        facts: pipeline, task, ratio and settings, for people.
    """

    label: str
    argv: tuple[str, ...]
    request: str
    identity: Callable[[], str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """How a cell was attempted. Only a process that holds the cell's lock writes it.

    Args:
        state: ``pending``, ``running``, ``done`` or ``failed`` when it was written.
        attempts: how often the cell was started, without those starts that were stopped on request.
        identity: the identity that a summary must have to count.
        rc, error: exit code of the last attempt, negative for the signal that killed it, and why it failed.
        host, pid: the worker of the last attempt.
        started, ended: of the last attempt, in seconds since 1970.
    """

    request: str
    state: str = "pending"
    attempts: int = 0
    identity: str | None = None
    rc: int | None = None
    error: str | None = None
    host: str | None = None
    pid: int | None = None
    started: float | None = None
    ended: float | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Status:
    """Where a cell stands: its state, its record, and its summary if it is done."""

    cell: Cell
    state: str
    record: Record
    summary: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        """Why the cell is failed or lost."""
        if self.state == "lost" and self.record.error is None:
            return f"its worker, process {self.record.pid} on {self.record.host}, is gone"
        return self.record.error


@dataclass(frozen=True)
class Claim:
    """A cell that this process runs. ``lock`` is the file descriptor that holds its lock."""

    cell: Cell
    record: Record
    lock: int


class SweepFolder:
    """The states of some cells in a sweep's folder. Several processes may work in one folder at the same time.

    Every method raises UserError if a file cannot be read, written or locked, or if a record is not of this program.
    The file is then left as it is.
    """

    def __init__(self, out: Path, cells: Sequence[Cell]) -> None:
        self.out, self.cells = out, cells
        self._unfinished = list(cells)
        self._final: dict[str, Status] = {}  # no other command changes these but one with --retry
        with _explained(out / ATTEMPTS):
            (out / ATTEMPTS).mkdir(parents=True, exist_ok=True)

    def prepare(self, retry: bool) -> None:
        """Compare the identities of results with those that are expected now. A command begins with this.

        A cell with results of another identity becomes pending; the evaluation that then runs refuses its folder and
        says what differs. With ``retry``, cells that failed or were lost become pending, and those in which samples
        failed.
        """
        for cell in self.cells:
            if (lock := self._lock(cell)) is not None:
                with contextlib.ExitStack() as stack:
                    stack.callback(_unlock, lock)
                    record = self._record(cell)
                    if (prepared := self._prepared(cell, record, retry)) != record:
                        self._write(cell, prepared)

    def _prepared(self, cell: Cell, record: Record, retry: bool) -> Record:
        summary = self._summary(cell)
        if _has_identity(summary, cell):
            rc = 3 if summary.get("errors") else 0
            why = None if retry else _why_failed(summary)
            state = "pending" if retry and rc == 3 else "failed" if why else "done"
            return replace(record, state=state, identity=summary["identity"], rc=rc, error=why)
        if record.state == "done" or (retry and state_of(record, summary) in ("failed", "lost")):
            return replace(record, state="pending")
        return record

    def statuses(self) -> list[Status]:
        """Where all cells stand, in their order."""
        found = [self._final.get(cell.label) or self.status(cell) for cell in self.cells]
        self._final.update({one.cell.label: one for one in found if one.state in ("done", "failed", "lost")})
        return found

    def status(self, cell: Cell) -> Status:
        """Where a cell stands."""
        record, summary = self._record(cell), self._summary(cell)
        if record.state != "running":
            state = state_of(record, summary)
            return Status(cell, state, record, summary if state == "done" else {})
        if (lock := self._lock(cell)) is None:
            return Status(cell, "running", record, {})
        _unlock(lock)
        if self._record(cell) != record:  # it has ended between the two looks
            return self.status(cell)
        return Status(cell, state_of(record, summary), record, {})

    def claim(self) -> Claim | None:
        """Lock the next pending cell and count an attempt; None if there is none."""
        for cell in list(self._unfinished):
            if (lock := self._lock(cell)) is None:
                continue
            with contextlib.ExitStack() as stack:
                stack.callback(_unlock, lock)
                record = self._record(cell)
                self._unfinished.remove(cell)
                if state_of(record, self._summary(cell)) == "pending":
                    here = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time(), "ended": None}
                    count = record.attempts + 1
                    record = replace(record, state="running", attempts=count, rc=None, error=None, **here)
                    self._write(cell, record)
                    stack.pop_all()
                    return Claim(cell, record, lock)
        return None

    def unfinished(self) -> bool:
        """Whether `claim` has left cells out because other processes hold their locks."""
        return bool(self._unfinished)

    def finish(self, claim: Claim, rc: int, error: str | None = None) -> None:
        """Record the end of a cell; it has failed if there is an ``error``.

        The identity in its summary is believed, since the evaluation has just computed it where it ran: the machine of
        the sweep, e.g. the login node of a cluster, may resolve another device.
        """
        summary = self._summary(claim.cell)
        if error is None:
            not_there = f"it ended well, but {self.out / claim.cell.label / SUMMARY} is not there"
            error = _why_failed(summary) if summary else not_there
        record = replace(claim.record, state="failed" if error else "done", rc=rc, error=error, ended=time.time())
        self._end(claim, record if error else replace(record, identity=summary.get("identity")))

    def release(self, claim: Claim, error: str | None = None) -> None:
        """Give back a cell that was stopped: on request, which costs no attempt, or because of an ``error``."""
        record = replace(claim.record, error=error, ended=time.time())
        if error is None:
            record = replace(record, state="pending", attempts=record.attempts - 1)
        self._end(claim, record)

    # -- files --------------------------------------------------------------------------------------------------------

    def _path(self, cell: Cell, suffix: str) -> Path:
        return self.out / ATTEMPTS / f"{cell.label}{suffix}"

    def _record(self, cell: Cell) -> Record:
        path = self._path(cell, ".json")
        with _explained(path):
            text = _read(path)
        if text is None:
            return Record(cell.request)
        try:
            record = Record(**json.loads(text))
        except (ValueError, TypeError):
            record = None
        if record is None or record.format != FORMAT:
            raise UserError(
                f"{path} is no record of a cell in format {FORMAT}",
                "choose another folder with --out; nothing in this one was changed",
            )
        return record if record.request == cell.request else Record(cell.request)

    def _summary(self, cell: Cell) -> dict[str, Any]:
        """The summary of a cell; empty if there is none."""
        try:
            summary = json.loads(_read(self.out / cell.label / SUMMARY) or "{}")
        except (OSError, ValueError):
            return {}
        return summary if isinstance(summary, dict) else {}

    def _write(self, cell: Cell, record: Record) -> None:
        path = self._path(cell, ".json")
        with _explained(path):
            write_atomically(path, (json.dumps(asdict(record), indent=1) + "\n").encode())

    def _end(self, claim: Claim, record: Record) -> None:
        try:
            self._write(claim.cell, record)
        finally:
            _unlock(claim.lock)

    def _lock(self, cell: Cell) -> int | None:
        """The file descriptor that holds the cell's lock; None if another process has it.

        Not by filelock, because the cell's processes must inherit the descriptor.
        """
        path = self._path(cell, ".lock")
        with _explained(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException as error:
                os.close(lock)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            return lock


def state_of(record: Record, summary: Mapping[str, Any]) -> str:
    """The state of a cell whose lock nobody holds."""
    if record.state == "running":  # its worker died
        return "pending" if record.attempts < MAX_ATTEMPTS else "lost"
    if record.state == "done" and (not summary or summary.get("identity") != record.identity):
        return "pending"
    return record.state


def _why_failed(summary: Mapping[str, Any]) -> str | None:
    """Why a cell that ran to its end has failed: none of its samples has an answer."""
    return failures(summary) if not summary.get("n") else None


def _has_identity(summary: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a summary is of what the cell would compute now."""
    found = summary.get("identity")
    try:
        return found is not None and cell.identity is not None and found == cell.identity()
    except UserError:
        return False  # e.g. the model is not there any more; the evaluation will say so


def _unlock(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do while a child has inherited the descriptor
    os.close(lock)


def _read(path: Path) -> str | None:
    """The text of a file; None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return path.read_text(encoding="utf-8")  # a machine of the network file system has just replaced it


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """An error of the file system as a message that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be used: {error.strerror or error}",
            "finished cells are kept; make room or choose another folder with --out, and run the command again",
        ) from error
