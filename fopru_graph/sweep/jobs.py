"""The job table of a sweep: one row a cell in an SQLite file, shared by the processes of one machine.

A row is ``pending``, ``running``, ``done``, ``failed`` or ``lost``: its worker went away in the middle. A lost cell
becomes pending again until it was begun `MAX_ATTEMPTS` times. SQLite's locks are unsafe on a network file system, so
the table must be opened by the processes of one machine only; see `shares` for the workers of a cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError

FORMAT = 1
LEASE = 60.0  # seconds after its last heartbeat that a worker on another machine is believed to be alive
MAX_ATTEMPTS = 2

_MARK = 0x46505357  # SQLite's application_id: whose file this is
_COLUMNS = "hash, label, argv, facts, state, attempts, host, pid, heartbeat, rc, started, ended, error"
_SCHEMA = """
CREATE TABLE cells (
  hash TEXT PRIMARY KEY, label TEXT NOT NULL, argv TEXT NOT NULL, facts TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed', 'lost')), attempts INTEGER NOT NULL,
  host TEXT, pid INTEGER, heartbeat REAL, rc INTEGER, started REAL, ended REAL, error TEXT)
"""
_CLAIM = f"""
UPDATE cells SET state = 'running', attempts = attempts + 1, host = :host, pid = :pid, heartbeat = :now, started = :now,
                 ended = NULL, rc = NULL, error = NULL
WHERE hash = (SELECT hash FROM cells JOIN chosen USING (hash) WHERE state = 'pending' ORDER BY place LIMIT 1)
  AND state = 'pending'
RETURNING {_COLUMNS}
"""
_ANOTHER = "choose another folder with --out; nothing in this one was changed"


@dataclass(frozen=True)
class Job:
    """One cell as a row of the table.

    ``hash`` identifies what is computed, ``label`` is its results folder, ``argv`` the command, ``facts`` what a report
    says of it; times are seconds since 1970.
    """

    hash: str
    label: str
    argv: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: str = "pending"
    attempts: int = 0
    host: str | None = None
    pid: int | None = None
    heartbeat: float | None = None
    rc: int | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All columns as plain values."""
        return {name: getattr(self, name) for name in _COLUMNS.split(", ")} | {"argv": list(self.argv)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """The inverse of `to_json`."""
        return replace(cls(**data), argv=tuple(data["argv"]))


class JobTable:
    """The table as one process sees it: all rows are kept, those of `add` are this command's own.

    Args:
        path: the SQLite file; made where there is none.
        host, pid: who claims; this process without them.
        clock: seconds since 1970.

    Raises:
        UserError: the file is of another program or version, or cannot be opened; it is then left as it is.
    """

    def __init__(
        self, path: Path, host: str | None = None, pid: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._host, self._pid, self._clock = host or socket.gethostname(), pid or os.getpid(), clock
        if sqlite3.sqlite_version_info < (3, 35):
            raise UserError(
                f"a sweep needs SQLite 3.35, this Python has {sqlite3.sqlite_version}", "use a newer build of Python"
            )
        with _naming(path):
            self._base = sqlite3.connect(path, timeout=30, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._base.close()
                raise

    def _open(self) -> None:
        """Check whose file it is before anything, the journal's mode included, is changed."""
        self._check()
        if self._base.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise UserError(f"{self.path}: this file system cannot hold the job table", "choose a local one with --out")
        self._base.execute("PRAGMA synchronous = NORMAL")
        self._base.execute("PRAGMA temp_store = MEMORY")
        with self._transaction():
            if self._check() == "empty":
                self._base.execute(_SCHEMA)
                self._base.execute(f"PRAGMA application_id = {_MARK}")
                self._base.execute(f"PRAGMA user_version = {FORMAT}")
        self._base.execute("CREATE TEMP TABLE chosen (hash TEXT PRIMARY KEY, place INTEGER)")

    def _check(self) -> str:
        try:
            mark = self._base.execute("PRAGMA application_id").fetchone()[0]
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            tables = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise UserError(f"{self.path} is no SQLite file: {error}", _ANOTHER) from error
        if not mark and not tables:
            return "empty"
        if mark != _MARK:
            raise UserError(f"{self.path} is a database of another program", _ANOTHER)
        if version != FORMAT:
            raise UserError(f"{self.path} has format {version}, this version knows format {FORMAT}", _ANOTHER)
        return "ours"

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    # -- the cells of a command ---------------------------------------------------------------------------------------

    def add(self, jobs: Sequence[Job]) -> None:
        """Make ``jobs`` this command's own. New ones are pending; those that are known keep their state."""
        rows = [(job.hash, job.label, json.dumps(job.argv), json.dumps(dict(job.facts))) for job in jobs]
        with _naming(self.path), self._transaction():
            self._base.executemany(
                "INSERT INTO cells (hash, label, argv, facts, state, attempts) VALUES (?, ?, ?, ?, 'pending', 0) "
                "ON CONFLICT (hash) DO UPDATE SET label = excluded.label, argv = excluded.argv, facts = excluded.facts",
                rows,
            )
            pairs = [(job.hash, place) for place, job in enumerate(jobs)]
            self._base.executemany("INSERT OR REPLACE INTO chosen VALUES (?, ?)", pairs)

    def jobs(self) -> list[Job]:
        """This command's cells in the order in which they were added."""
        return self._select("JOIN chosen USING (hash) ORDER BY place")

    def renew(self, is_there: Callable[[Job], bool], retry: bool) -> None:
        """Make done cells without results pending again; with ``retry`` those that failed or have error rows too."""
        for job in self.jobs():
            again = retry and (job.state in ("failed", "lost") or (job.state == "done" and job.rc == 3))
            if again or (job.state == "done" and not is_there(job)):
                self._put(job, "pending", job.attempts, job.rc, job.error)

    def unfinished(self) -> bool:
        """Whether a cell of this command is pending, or running anywhere."""
        query = "SELECT count(*) FROM cells JOIN chosen USING (hash) WHERE state IN ('pending', 'running')"
        return bool(self._run(query)[0][0])

    # -- a worker's side ----------------------------------------------------------------------------------------------

    def claim(self) -> Job | None:
        """The next pending cell of this command, now running here; None when there is none.

        Done cells of other settings whose results are in the same folder count as not done from here on.
        """
        with _naming(self.path), self._transaction():
            found = self._base.execute(_CLAIM, self._self()).fetchall()
            if not found:
                return None
            job = _job(found[0])
            self._base.execute(
                "UPDATE cells SET state = 'pending' WHERE label = ? AND hash <> ? AND state = 'done'",
                (job.label, job.hash),
            )
            return job

    def beat(self, running: Collection[str]) -> set[str]:
        """Say that these cells are still running here; returns those that another worker has taken over."""
        query = (
            "UPDATE cells SET heartbeat = :now WHERE state = 'running' AND host = :host AND pid = :pid RETURNING hash"
        )
        return set(running) - {row[0] for row in self._run(query, self._self())}

    def finish(self, job: Job, state: str, rc: int, error: str | None = None) -> None:
        """The end of a cell that `claim` gave: ``done`` or ``failed``, its exit code, and what went wrong."""
        self._put(job, state, job.attempts, rc, error)

    def release(self, job: Job) -> None:
        """Give back a cell that was stopped on request; that attempt does not count."""
        self._put(job, "pending", job.attempts - 1, None, None)

    def _put(self, job: Job, state: str, attempts: int, rc: int | None, error: str | None) -> None:
        """Change a row, unless somebody else has changed it since ``job`` was read."""
        values = {"state": state, "n": attempts, "rc": rc, "error": error, "now": self._clock(), "hash": job.hash}
        self._run(
            "UPDATE cells SET state = :state, attempts = :n, rc = :rc, error = :error, ended = :now "
            "WHERE hash = :hash AND state = :was AND attempts = :attempts AND host IS :host AND pid IS :pid",
            values | {"was": job.state, "attempts": job.attempts, "host": job.host, "pid": job.pid},
        )

    # -- cells whose worker is gone -----------------------------------------------------------------------------------

    def recover(self, running: Collection[str] = ()) -> None:
        """Running cells without a worker become lost, and lost ones pending while they have attempts left.

        ``running`` are those that this process runs.
        """
        for job in self._select("WHERE state = 'running'"):
            if job.hash not in running and self._is_gone(job):
                self.lose(job, f"its worker, process {job.pid} on {job.host}, is gone")
        self._run(f"UPDATE cells SET state = 'pending' WHERE state = 'lost' AND attempts < {MAX_ATTEMPTS}")

    def lose(self, job: Job, error: str) -> None:
        """Mark a running cell as lost."""
        self._put(job, "lost", job.attempts, None, error)

    def _is_gone(self, job: Job) -> bool:
        import psutil

        if (job.host, job.pid) == (self._host, self._pid):
            return True  # this process would know; so it is an earlier one's that had the same number
        silent = self._clock() - (job.heartbeat or 0) > LEASE
        if job.host != self._host:
            return silent
        try:
            process = psutil.Process(job.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return silent and process.create_time() > (job.heartbeat or 0)  # the number was given to another process
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return silent

    def absorb(self, found: Job) -> None:
        """Take over what a worker elsewhere wrote of a cell, unless the table has a later attempt or a final state."""
        self._run(
            "UPDATE cells SET state = :state, attempts = :attempts, host = :host, pid = :pid, heartbeat = :heartbeat, "
            "rc = :rc, started = :started, ended = :ended, error = :error WHERE hash = :hash AND (attempts < :attempts "
            "OR (attempts = :attempts AND state IN ('pending', 'running', 'lost')))",
            {key: value for key, value in found.to_json().items() if key not in ("argv", "facts", "label")},
        )

    # -- SQLite -------------------------------------------------------------------------------------------------------

    def _self(self) -> dict[str, Any]:
        return {"host": self._host, "pid": self._pid, "now": self._clock()}

    def _select(self, rest: str) -> list[Job]:
        return [_job(row) for row in self._run(f"SELECT {_COLUMNS} FROM cells {rest}")]

    def _run(self, query: str, values: Mapping[str, Any] | None = None) -> list[Any]:
        with _naming(self.path):
            return self._base.execute(query, values or {}).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has ended the transaction itself when the disk is full
                self._base.execute("ROLLBACK")
            raise


def _job(row: Sequence[Any]) -> Job:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Job.from_json(values | {"argv": json.loads(values["argv"]), "facts": json.loads(values["facts"])})


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error of SQLite as a message that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(
            f"the job table {path} cannot be used: {error}",
            "finished cells are kept; make room or choose another folder with --out, and run the command again",
        ) from error
