"""The worker loop of a sweep: cells are claimed, run as processes, a few at the same time, and their ends noted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fopru_graph.errors import UserError
from fopru_graph.results.cell import SUMMARY
from fopru_graph.sweep.jobs import Job
from fopru_graph.sweep.process import CellProcess, StopSignals

LOGS = "logs"
GRACE = 15.0  # seconds that a cell has to stop when it is asked to
_LOOK, _BEAT = 0.1, 5.0  # seconds between looks at the processes, and between heartbeats


class Jobs(Protocol):
    """Where cells come from and their states go to; see `jobs.JobTable`."""

    def claim(self) -> Job | None:
        """The next cell, now running here."""

    def beat(self, running: Collection[str]) -> set[str]:
        """Say that these are still running; returns those that are not this worker's any more."""

    def recover(self, running: Collection[str]) -> None:
        """Make the cells of workers that are gone available."""

    def unfinished(self) -> bool:
        """Whether there is anything left to run or to wait for."""

    def finish(self, job: Job, state: str, rc: int, error: str | None) -> None:
        """Note the end of a cell."""

    def release(self, job: Job) -> None:
        """Give back a cell that was stopped on request."""


class Crew:
    """Runs the cells of ``jobs``, as many at the same time as there are ``places``.

    Args:
        jobs: where cells come from.
        out: the sweep's folder; a cell's results are in ``out/<label>``, its output in ``out/logs/<label>.log``.
        places: what is added to the environment of each of the cells that run at the same time.
        stop: asks for an early end.
        on_look: called again and again while cells run.
    """

    def __init__(
        self,
        jobs: Jobs,
        out: Path,
        places: Sequence[Mapping[str, str]],
        stop: StopSignals,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs, self._out, self._stop, self._on_look = jobs, out, stop, on_look
        self._free = list(places)
        self._running: dict[str, tuple[CellProcess, Mapping[str, str]]] = {}

    def run(self) -> None:
        """Run until nothing is left, or until it is asked to stop; no process is left behind in either case.

        Raises:
            UserError: states or logs cannot be written.
        """
        beaten = float("-inf")
        try:
            while not self._stop.count:
                self._collect()
                if time.monotonic() - beaten > _BEAT:
                    beaten = time.monotonic()
                    self._beat()
                self._begin()
                self._on_look()
                if not self._running and not self._jobs.unfinished():
                    return
                time.sleep(_LOOK)
        finally:
            self._wind_down()

    def _begin(self) -> None:
        while self._free and (job := self._jobs.claim()) is not None:
            place = self._free.pop()
            try:
                process = CellProcess(job, self._out / LOGS / f"{job.label}.log", place)
            except UserError:
                self._jobs.release(job)
                raise
            self._running[job.hash] = process, place

    def _collect(self) -> None:
        for key, (process, place) in list(self._running.items()):
            if (code := process.poll()) is not None:
                del self._running[key]
                self._free.append(place)
                self._end(process, code)

    def _end(self, process: CellProcess, code: int) -> None:
        """Error rows (3) are results too; a cell that says it has ended well must have left a summary."""
        job = process.job
        if code not in (0, 3):
            self._jobs.finish(job, "failed", code, process.last_words(code))
        elif not (self._out / job.label / SUMMARY).is_file():
            self._jobs.finish(job, "failed", code, f"it ended well, but {self._out / job.label / SUMMARY} is not there")
        else:
            self._jobs.finish(job, "done", code, None)

    def _beat(self) -> None:
        for key in self._jobs.beat(self._running):
            process, place = self._running.pop(key)
            process.kill()
            _await_end([process], GRACE, lambda: False)
            self._free.append(place)
        self._jobs.recover(self._running)

    def _wind_down(self) -> None:
        """Ask all cells to stop, end those that do not, and give them back."""
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            process.interrupt()
        _await_end(processes, GRACE, lambda: self._stop.count > 1)
        for process in processes:
            process.kill()
        _await_end(processes, GRACE, lambda: False)
        with contextlib.suppress(UserError):  # where states cannot be written, the next sweep finds them lost
            for process in processes:
                code = process.poll()
                if code in (0, 3):
                    self._end(process, code)
                else:
                    self._jobs.release(process.job)
        self._running.clear()


def _await_end(processes: Sequence[CellProcess], seconds: float, hurry: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < until and not hurry():
        time.sleep(0.02)
