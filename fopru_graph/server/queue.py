"""The durable queue of jobs: what was accepted is run once, or is told to be lost, whatever is killed when.

One SQLite file. A job is on disk before its sender is answered, and marked as running on disk before it runs. A job
that was running when the server went down is ``lost``: part of its effect may be there, so it is never run again, and
it is never called done.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fopru_graph.errors import UserError

State = Literal["queued", "running", "done", "failed", "interrupted", "lost"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("done", "failed", "interrupted", "lost")
MOST_QUEUED = 1_000
MOST_ENDED = 1_000  # jobs in the history; older ones go
BUSY_S = 10.0  # how long another process that reads the file may hold it

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    place REAL NOT NULL,
    prompt TEXT NOT NULL,
    extra TEXT NOT NULL,
    client TEXT,
    result TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, place);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Job:
    """A job as it is on disk.

    Attributes:
        number: counts the jobs of this folder, from 1.
        prompt: what is to be run, as ComfyUI's API prompt.
        extra: what came with it and goes back with its history, e.g. the workflow.
        client: who sent it and is told of its progress; None if nobody is.
        result: what `JobQueue.end` was given; None before.
        created, started, ended: seconds since 1970; None for what has not happened.
    """

    id: str
    number: int
    state: State
    prompt: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    client: str | None = None
    result: dict[str, Any] | None = None
    created: float = 0.0
    started: float | None = None
    ended: float | None = None


class QueueFull(UserError):
    """There are as many jobs in the queue as it holds."""


class JobQueue:
    """The jobs of one server. Threads may share it; a second server on the same file is kept out by the caller's lock.

    Args:
        path: the SQLite file, which is made if there is none.
        most_queued: jobs that wait at most.

    Attributes:
        lost: the jobs that were running when the last server went down.
    """

    def __init__(self, path: Path, most_queued: int = MOST_QUEUED) -> None:
        self._most = most_queued
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before anybody is told of it
        self._db.executescript(_TABLES)
        with self._transaction():
            self.lost = [_job(row) for row in self._rows("state = 'running'", "number")]
            self._db.execute("UPDATE jobs SET state = 'lost', ended = ? WHERE state = 'running'", (time.time(),))

    # -- what comes in ------------------------------------------------------------------------------------------------

    def add(
        self, prompt: Mapping[str, Any], extra: Mapping[str, Any] | None = None, client: str | None = None,
        front: bool = False, id: str | None = None,
    ) -> Job:  # fmt: skip
        """Put a job at the end of the queue, or at its front; it is on disk when this returns.

        Raises:
            QueueFull: too many are waiting.
            UserError: there is a job of this ``id`` already.
        """
        with self._transaction():
            if self.waiting() >= self._most:
                raise QueueFull(f"{self._most} jobs are waiting already", "try again when some are done")
            (first, last) = self._db.execute(
                "SELECT MIN(place), MAX(place) FROM jobs WHERE state = 'queued'"
            ).fetchone()
            place = (first or 0.0) - 1 if front else (last or 0.0) + 1
            values = (id or str(uuid.uuid4()), place, _text(prompt), _text(extra or {}), client, time.time())
            try:
                row = self._db.execute(
                    "INSERT INTO jobs (id, state, place, prompt, extra, client, created) "
                    "VALUES (?, 'queued', ?, ?, ?, ?, ?) RETURNING *",
                    values,
                ).fetchone()
            except sqlite3.IntegrityError:
                raise UserError(f"there is a job {values[0]} already", "leave the id out") from None
            self._changed.notify_all()
        return _job(row)

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Take jobs out of the queue that have not begun; returns which there were."""
        with self._transaction():
            return [id for id in ids if self._write("DELETE FROM jobs WHERE id = ? AND state = 'queued'", id)]

    def clear(self) -> int:
        """Take out all jobs that have not begun; returns how many."""
        with self._transaction():
            return self._write("DELETE FROM jobs WHERE state = 'queued'")

    def move(self, id: str, index: int) -> bool:
        """Let a waiting job be the ``index``-th to run, from 0; False if it does not wait any more."""
        with self._transaction():
            waiting = [row["id"] for row in self._rows("state = 'queued'", "place")]
            if id not in waiting:
                return False
            waiting.remove(id)
            waiting.insert(max(0, index), id)
            for place, each in enumerate(waiting):
                self._write("UPDATE jobs SET place = ? WHERE id = ?", place, each)
            return True

    # -- what is run --------------------------------------------------------------------------------------------------

    def take(self, timeout: float | None = None) -> Job | None:
        """The next job, which is running from now on; None if there is none, after ``timeout`` seconds, or at the end.

        While the queue is paused there is none.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                if (job := self._claim()) is not None:
                    return job
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
        return None

    def _claim(self) -> Job | None:
        if self.paused:
            return None
        with self._transaction():
            row = self._db.execute(
                "UPDATE jobs SET state = 'running', started = ? WHERE number = "
                "(SELECT number FROM jobs WHERE state = 'queued' ORDER BY place LIMIT 1) RETURNING *",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def end(self, id: str, state: State, result: Mapping[str, Any] | None = None) -> None:
        """A running job has ended; old ones leave the history."""
        if state not in ENDED:
            raise ValueError(f"a job does not end as {state}")
        with self._transaction():
            self._write(
                "UPDATE jobs SET state = ?, ended = ?, result = ? WHERE id = ? AND state = 'running'",
                state, time.time(), _text(result or {}), id,
            )  # fmt: skip
            ended = ", ".join(f"'{name}'" for name in ENDED)
            self._write(
                f"DELETE FROM jobs WHERE state IN ({ended}) AND number <= (SELECT number FROM jobs "
                f"WHERE state IN ({ended}) ORDER BY number DESC LIMIT 1 OFFSET ?)",
                MOST_ENDED,
            )

    @property
    def paused(self) -> bool:
        """Whether waiting jobs are left to wait; it outlives the server."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM settings WHERE name = 'paused'").fetchone() is not None

    def pause(self) -> None:
        """Begin no more jobs; the one that runs goes on."""
        with self._transaction():
            self._write("INSERT OR REPLACE INTO settings VALUES ('paused', 'yes')")

    def resume(self) -> None:
        """Go on with the jobs that wait."""
        with self._transaction():
            self._write("DELETE FROM settings WHERE name = 'paused'")
            self._changed.notify_all()

    # -- what there is ------------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        """How many jobs wait."""
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetchone()[0])

    def count(self, *states: State) -> int:
        """How many jobs are in these states."""
        where = f"state IN ({', '.join('?' for _ in states)})"
        with self._lock:
            return int(self._db.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", states).fetchone()[0])

    def jobs(self, *states: State, newest: bool = False, most: int = -1, offset: int = 0) -> list[Job]:
        """Jobs in these states: waiting ones in the order in which they will run, others by their numbers."""
        chosen = states or STATES
        order = "place" if chosen == ("queued",) else f"number {'DESC' if newest else 'ASC'}"
        where = f"state IN ({', '.join('?' for _ in chosen)})"
        with self._lock:
            return [_job(row) for row in self._rows(f"{where}", f"{order} LIMIT ? OFFSET ?", *chosen, most, offset)]

    def find(self, id: str) -> Job | None:
        """The job of this id; None if it is unknown, or gone from the history."""
        with self._lock:
            return next((_job(row) for row in self._rows("id = ?", "number", id)), None)

    def forget(self, ids: Iterable[str] | None = None) -> int:
        """Take ended jobs out of the history, all of them for None; returns how many."""
        ended = ", ".join(f"'{name}'" for name in ENDED)
        with self._transaction():
            if ids is None:
                return self._write(f"DELETE FROM jobs WHERE state IN ({ended})")
            return sum(self._write(f"DELETE FROM jobs WHERE id = ? AND state IN ({ended})", id) for id in ids)

    def close(self) -> None:
        """End waiting in `take`, and close the file. What waits is there when it is opened again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._db.close()

    # -- the file -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, where: str, order: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(f"SELECT * FROM jobs WHERE {where} ORDER BY {order}", values).fetchall()

    def _write(self, statement: str, *values: Any) -> int:
        return self._db.execute(statement, values).rowcount


def _job(row: sqlite3.Row) -> Job:
    about = {name: row[name] for name in ("id", "number", "state", "client", "created", "started", "ended")}
    result = json.loads(row["result"]) if row["result"] is not None else None
    return Job(**about, prompt=json.loads(row["prompt"]), extra=json.loads(row["extra"]), result=result)


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
