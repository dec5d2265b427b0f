"""A sweep's workers on other machines: every task of a Slurm array gets a fixed share of the cells.

SQLite's locks cannot be trusted on the file systems of clusters. So the workers never open the job table: each writes
the states of its cells as small files of its own, which appear whole, and the submitting process takes them over into
the table. No cell is in two shares, so nothing needs to be claimed. A worker ends when its sweep is not the current one
any more, and a sweep gives out no cell that a worker of an earlier one may still be running.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.sweep.jobs import LEASE, Job, JobTable
from fopru_graph.sweep.process import StopSignals, places_for
from fopru_graph.sweep.workers import Crew

FOLDER = "slurm"
MINUTES = 240  # that a task of the array may take, where the user says nothing
_CURRENT, _STATES = "current", "cells"
_LOOK = 0.5  # seconds between looks at the workers' files


class Share:
    """The cells of one worker, as its `Crew` sees them. Files: ``<sweep>/<name>.json`` and ``<sweep>/cells/*.json``."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self._folder, self._todo = folder, list(jobs)
        self._running: dict[str, Job] = {}

    def claim(self) -> Job | None:
        """The next cell of the share."""
        if not self._todo:
            return None
        job, now = self._todo.pop(0), time.time()
        job = replace(job, state="running", attempts=job.attempts + 1, started=now, heartbeat=now)
        job = replace(job, host=socket.gethostname(), pid=os.getpid())
        self._running[job.hash] = job
        self._write(job)
        return job

    def beat(self, running: Collection[str]) -> set[str]:
        """Say that these are still running. Once another sweep has begun, none of them is this one's."""
        if _is_superseded(self._folder):
            self._todo.clear()
            for key in running:
                self.release(self._running[key])
            return set(running)
        for key in running:
            self._write(replace(self._running[key], heartbeat=time.time()))
        return set()

    def recover(self, running: Collection[str]) -> None:
        """A share has no other workers."""

    def unfinished(self) -> bool:
        """Whether there are cells left."""
        return bool(self._todo)

    def finish(self, job: Job, state: str, rc: int, error: str | None) -> None:
        """Note the end of a cell."""
        self._write(replace(job, state=state, rc=rc, error=error, ended=time.time()))

    def release(self, job: Job) -> None:
        """A cell that was stopped because this worker's time is over; its finished samples are kept."""
        self._write(replace(job, state="lost", error="its worker was stopped or ran out of time", ended=time.time()))

    def _write(self, job: Job) -> None:
        path = self._folder / _STATES / f"{job.hash}-{job.attempts}.json"
        try:
            write_atomically(path, json.dumps(job.to_json()).encode())
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}", "make room, and run the sweep again"
            ) from error


def run_share(folder: str, name: str) -> None:
    """What a task of the array does: run the cells of one share. Its arguments are texts: nothing else is pickled."""
    share = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    os.chdir(share["cwd"])
    # Slurm's time limit announces itself by SIGUSR2, which submitit asks for.
    with StopSignals(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2) as stop:
        jobs = Share(Path(folder), [Job.from_json(job) for job in share["jobs"]])
        Crew(jobs, Path(share["out"]), places_for(1, share["device"]), stop).run()


class Handle(Protocol):
    """One submitted task, see `submitit.Job`."""

    def done(self) -> bool:
        """Whether it has ended in whatever way."""

    def cancel(self, check: bool) -> None:
        """Take it out of the queue, or end it."""

    def exception(self) -> BaseException | None:
        """What it failed with."""


Submit = Callable[[Path, Sequence[str]], Sequence[Handle]]  # a sweep's folder and names of shares


def submitter(kind: str, parameters: Mapping[str, Any]) -> Submit:
    """How to submit an array: ``slurm``, or ``submitit-local`` for processes of this machine.

    ``parameters`` are those of sbatch with underscores, e.g. ``partition``, ``time`` (minutes), ``gpus_per_node``.

    Raises:
        UserError: submitit or Slurm is not there, or does not know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"--executor {kind} needs submitit", "pip install 'fopru-graph[slurm]'") from error
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("there is no Slurm here: sbatch and srun are not found", "run the sweep on a login node")

    def submit(folder: Path, names: Sequence[str]) -> Sequence[Handle]:
        place = folder / "submitit"
        executor = submitit.SlurmExecutor(place) if kind == "slurm" else submitit.LocalExecutor(place)
        try:
            if kind == "slurm":
                executor.update_parameters(**{"job_name": "fopru-sweep", "time": MINUTES} | dict(parameters))
            else:
                executor.update_parameters(timeout_min=MINUTES)
            handles: Sequence[Handle] = executor.map_array(run_share, [str(folder)] * len(names), list(names))
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"the job array was not accepted: {error}", "see --slurm NAME=VALUE") from error
        return handles

    return submit


class Array:
    """A sweep whose cells are run by the tasks of arrays.

    Args:
        table: the job table, opened by this process only.
        out: the sweep's folder, on a file system that all machines share.
        submit: see `submitter`.
        tasks: number of tasks of an array.
        device: what ``--device`` says.
        stop: asks for an early end.
        on_look: called again and again while cells run.
    """

    def __init__(
        self,
        table: JobTable,
        out: Path,
        submit: Submit,
        tasks: int,
        stop: StopSignals,
        on_look: Callable[[], None] = lambda: None,
        device: str | None = None,
    ) -> None:
        self._table, self._out, self._submit, self._tasks, self._device = table, out, submit, tasks, device
        self._stop, self._on_look = stop, on_look
        self._folder = out.resolve() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._seen: dict[Path, str] = {}
        self._final: set[Path] = set()

    def run(self) -> None:
        """Submit arrays until no cell is pending or running.

        Raises:
            UserError: files cannot be written, an array is not accepted or begins no cell, or another sweep took over.
        """
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700)  # submitit keeps pickles in it, and whoever can write those can run code
            (self._folder / _STATES).mkdir()
            write_atomically(self._folder.parent / _CURRENT, self._folder.name.encode())
            self._look()
            while self._table.unfinished() and not self._stop.count:
                if self._running():  # by workers of an earlier sweep, which end now
                    self._pause()
                else:
                    self._round([job for job in self._table.jobs() if job.state == "pending"])
        except OSError as error:
            raise UserError(
                f"{self._folder} cannot be written: {error.strerror}", "choose another with --out"
            ) from error

    def _round(self, pending: Sequence[Job]) -> None:
        """One array over all pending cells."""
        shares = [pending[first :: self._tasks] for first in range(min(self._tasks, len(pending)))]
        names = [f"share-{len(list(self._folder.glob('share-*')))}-{number}" for number in range(len(shares))]
        common = {"cwd": os.getcwd(), "out": str(self._out.resolve()), "device": self._device}
        for name, share in zip(names, shares, strict=True):
            text = json.dumps(common | {"jobs": [job.to_json() for job in share]})
            write_atomically(self._folder / f"{name}.json", text.encode())
        before = self._begun()
        handles = self._submit(self._folder, names)
        while not all(handle.done() for handle in handles):
            if self._stop.count or _is_superseded(self._folder):
                self._end_early(handles)
                return
            self._pause()
        errors = [str(error).strip() for handle in handles if (error := handle.exception()) is not None]
        self._look()
        for job in self._running():
            self._table.lose(job, "its worker ended before it did")
        self._look()
        if self._begun() == before:
            why = errors[0].splitlines()[-1] if errors else "they ended at once"
            raise UserError(
                f"the tasks of the array began no cell: {why}", f"their logs are in {self._folder}/submitit"
            )

    def _end_early(self, handles: Sequence[Handle]) -> None:
        """Take the tasks out of the queue and wait until those that ran have said what became of their cells."""
        taken_over = _is_superseded(self._folder)
        if not taken_over:
            write_atomically(self._folder.parent / _CURRENT, b"")
        for handle in handles:
            handle.cancel(check=False)
        if taken_over:
            raise UserError(f"another sweep has taken over {self._out}", "let one sweep at a time use a folder")
        until = time.monotonic() + LEASE
        while self._running() and time.monotonic() < until and self._stop.count < 2:
            self._pause()
        self._give_back()

    def _give_back(self) -> None:
        """What was stopped on request was not attempted, so the file that says so must not be found again."""
        for job in self._table.jobs():
            path = self._folder / _STATES / f"{job.hash}-{job.attempts}.json"
            if job.state in ("pending", "lost") and path.exists():
                path.unlink()
                self._table.release(job)

    def _pause(self) -> None:
        time.sleep(_LOOK)
        self._look()

    def _look(self) -> None:
        """Take over what the workers of this and earlier sweeps have written."""
        for path in sorted(self._folder.parent.glob(f"*/{_STATES}/*.json")):
            if path in self._final:
                continue
            try:
                text = path.read_text(encoding="utf-8")
                job = Job.from_json(json.loads(text))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # gone stale on a network file system; the next look has it
            if self._seen.get(path) != text:  # machines' clocks differ, so a heartbeat is when a change was seen
                self._seen[path] = text
                self._table.absorb(replace(job, heartbeat=time.time()))
            if job.state != "running":
                self._final.add(path)
        self._table.recover()
        self._on_look()

    def _running(self) -> list[Job]:
        return [job for job in self._table.jobs() if job.state == "running"]

    def _begun(self) -> int:
        return sum(1 for _ in (self._folder / _STATES).iterdir())


def _is_superseded(folder: Path) -> bool:
    try:
        return (folder.parent / _CURRENT).read_text(encoding="utf-8") != folder.name
    except OSError:
        return False  # not to be read just now
