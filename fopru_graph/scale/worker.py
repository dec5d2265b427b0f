"""A worker: it makes parts, one after the other, and tells in the run's folder how far it is.

``state/<number>.rows`` has a line for each start of a part and for each batch that was begun; ``state/<number>.done``
appears when the part is written. What is begun and not done tells at which rows workers died: rows at which two have
died alone are given up, so that a picture that ends a process costs a row and not the run.

As a program, ``python -m fopru_graph.scale.worker RUN`` makes parts until all are made, beside others on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph import NodeError
from fopru_graph.pipeline_map import ERROR, TOKENS, WRITE, PipelineMap
from fopru_graph.processes.process import StopSignals
from fopru_graph.results.identity import cell_identity
from fopru_graph.scale.folder import MapFolder, registered
from fopru_graph.scale.plan import Job, Part, Plan, read_part
from fopru_graph.scale.rows import Id, Place, RowError, Table
from fopru_graph.scale.table import open_table

DEATHS = 2  # of workers at a row, after which it is given up
FAILED = "failed.json"
_GIVEN_UP = f"{DEATHS} workers died at this row"
_WAIT = 0.2  # seconds between looks for parts that other workers have left


class Stopped(Exception):
    """The worker was asked to end, or its run is not the current one any more; its part is not written."""


class Worker:
    """Makes parts of a run. Loads the pipeline with its model when it is made.

    Args:
        run: the run's folder.
        stop: asks for an end.

    Raises:
        UserError: the pipeline or its model cannot be loaded, or is not what the folder holds rows of.
    """

    def __init__(self, run: Path, stop: StopSignals) -> None:
        self.run, self._stop = run, stop
        self._job = Job.load(run)
        os.chdir(self._job.cwd)
        self.plan = Plan.load(run)
        self._folder = MapFolder(Path(self._job.into))
        self._map = PipelineMap(**self._job.arguments)
        identity = identity_of(self._map, self._job)
        self._key = identity["key"]
        self._folder.claim(identity)
        self._table: Table = open_table(Path(self._job.over))
        try:
            self._map.load()
        except NodeError as error:
            raise UserError(str(error), error.hint) from error

    def make(self, part: Part) -> None:
        """Answer the rows of a part and write it, unless it is there already.

        Raises:
            Stopped: before it was written.
            OSError: it cannot be written.
            NodeError: nothing can be computed in this process any more.
        """
        state = self.run / "state"
        done = state / f"{part.number}.done"
        if done.exists() or (not part.again and self._folder.part(part.number).exists()):
            done.touch()  # a worker was killed before it could say so
            return
        rows = read_part(self.run, part)
        with _Trail(state / f"{part.number}.rows") as trail:
            made = [row for batch in trail.batches(len(rows), self._job.batch_size) for row in self._batch(rows, batch)]
            trail.end()
        self.go_on()
        if part.again:
            made = self._merged(part, made)
        self._folder.write(part.number, _table(made, self._job.key, self._map.write), self._key)
        done.touch()

    def _batch(self, rows: Sequence[tuple[Id, Place]], batch: _Batch) -> list[dict[str, Any]]:
        """The results of some rows."""
        self.go_on()
        chosen = rows[batch.start : batch.start + batch.count]
        wanted = list(dict.fromkeys(self._map.read.values()))
        made: list[dict[str, Any]] = [{self._job.key: id_} for id_, _ in chosen]
        read: dict[int, dict[str, Any]] = {}
        for index, (id_, place) in enumerate(chosen):
            try:
                if batch.given_up:
                    raise RowError(_GIVEN_UP)
                read[index] = self._table.row(id_, place, wanted)
            except RowError as error:
                made[index][ERROR] = str(error)
        if read:
            columns = self._map({name: [row[name] for row in read.values()] for name in wanted})
            for place_in_batch, index in enumerate(read):
                made[index] |= {name: column[place_in_batch] for name, column in columns.items()}
        return made

    def _merged(self, part: Part, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a part's file, those that were made again in their places."""
        import pyarrow.parquet

        again = {row[self._job.key]: row for row in made}
        before = pyarrow.parquet.read_table(self._folder.part(part.number), use_threads=False).to_pylist()
        return [again.get(row[self._job.key], row) for row in before]

    def go_on(self) -> None:
        """Raise `Stopped` if this worker is to end."""
        if self._stop.count or not self._folder.is_current(self.run):
            raise Stopped


def identity_of(mapped: PipelineMap, job: Job) -> dict[str, Any]:
    """What the rows of a map follow from, as `results.identity` has it.

    The contents of the rows are not in it: an id stands for its row.

    Raises:
        UserError: the pipeline has problems.
    """
    plan, target = mapped.plan()
    task = {"read": mapped.read, "write": mapped.write, "id": job.key}
    return cell_identity(plan, target, task=task, functions=(), data=job.over)


class _Batch:
    """Rows that go through the pipeline together: the first, their number, and whether workers died at them."""

    def __init__(self, start: int, count: int, given_up: bool = False) -> None:
        self.start, self.count, self.given_up = start, count, given_up


class _Trail:
    """What workers have begun of a part: a line ``begin`` for each, ``<start> <count>`` for each batch, ``end``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths = _deaths(path)

    def __enter__(self) -> _Trail:
        self._stream = self._path.open("ab", buffering=0)
        self._say("begin")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is Stopped:
            self.end()  # nobody died
        self._stream.close()

    def batches(self, count: int, size: int) -> Iterator[_Batch]:
        """Batches of ``size`` of ``count`` rows, each written down when it is begun.

        One at which workers died goes row by row, and rows at which they died alone are given up.
        """
        for start in range(0, count, size):
            length = min(size, count - start)
            if length > 1 and self._deaths[start, length] >= DEATHS:
                yield from (self._begun(row, 1) for row in range(start, start + length))
            else:
                yield self._begun(start, length)

    def end(self) -> None:
        """All rows are answered, or the rest is left."""
        self._say("end")

    def _begun(self, start: int, count: int) -> _Batch:
        self._say(f"{start} {count}")
        return _Batch(start, count, count == 1 and self._deaths[start, 1] >= DEATHS)

    def _say(self, line: str) -> None:
        self._stream.write(f"{line}\n".encode())


def _deaths(path: Path) -> Counter[tuple[int, int]]:
    """How often workers died at a batch, i.e. began nothing after it, by its first row and number of rows."""
    found: Counter[tuple[int, int]] = Counter()
    if path.exists():
        for attempt in path.read_text(encoding="ascii").split("begin\n"):
            last = attempt.split("\n")[-2:-1]
            if last and last[0] not in ("", "end"):
                start, count = map(int, last[0].split())
                found[start, count] += 1
    return found


def _table(rows: Sequence[dict[str, Any]], key: str, write: Sequence[str]) -> Any:
    """The rows of a part as a `pyarrow.Table`."""
    import pyarrow

    kinds = {"string": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64()}
    kinds["tokens"] = pyarrow.struct([(name, kinds[kind]) for name, kind in TOKENS.items()])
    types = {name: kinds[WRITE[name]] for name in write} | {ERROR: kinds["string"]}
    columns = {key: pyarrow.array([row[key] for row in rows])}
    columns |= {name: pyarrow.array([row.get(name) for row in rows], kind) for name, kind in types.items()}
    return pyarrow.table(columns)


@contextlib.contextmanager
def failures_told(run: Path) -> Iterator[None]:
    """Write down why a worker fails, where the driver finds it, before it fails.

    Raises:
        UserError: part files cannot be written, or what the worker raised itself.
    """
    try:
        yield
    except Stopped:
        return
    except OSError as error:
        folder = Job.load(run).into
        failure = UserError(
            f"{folder} cannot be written: {error.strerror or error}",
            "finished parts are kept; make room or choose another folder with --into, and run the command again",
        )
        _tell(run, failure)
        raise failure from error
    except UserError as error:
        _tell(run, error)
        raise


def _tell(run: Path, failure: UserError) -> None:
    with contextlib.suppress(OSError):  # the disk may be full
        (run / FAILED).write_text(json.dumps({"message": failure.message, "hint": failure.hint}), encoding="utf-8")


def claim_parts(worker: Worker) -> None:
    """Make all parts, each by one process of this machine at a time; raises what `Worker.make` raises."""
    left = list(worker.plan.parts)
    while left:
        waiting = []
        for part in left:
            with (worker.run / "state" / f"{part.number}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting.append(part)
                    continue
                worker.make(part)
        left = waiting
        if left:
            worker.go_on()
            time.sleep(_WAIT)


def main() -> int:
    """Make parts of the run of the argument.

    Returns:
        0 when all are made or it was asked to stop, ``EX_TEMPFAIL`` where another process may do better, ``EX_IOERR``
        where nothing can be written, 1 where every other process would fail too.
    """
    run = Path(sys.argv[1])
    try:
        with StopSignals() as stop, failures_told(run), registered(run):
            claim_parts(Worker(run, stop))
    except NodeError as error:
        print(f"error: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    except UserError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return os.EX_IOERR if isinstance(error.__cause__, OSError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
