"""A sweep's workers on other machines: every task of a Slurm array runs a fixed share of the cells.

Tasks keep the same records as workers on this machine, and hold the same locks. But on some network file systems a lock
is seen only by the machine that holds it. So nothing here relies on it: no cell is in two shares, the end of a task is
what Slurm says, and a new sweep first waits for the cells that tasks of an earlier one may still be running. Such a
task ends when it sees that its sweep is not the current one any more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.processes import slurm
from fopru_graph.processes.process import StopSignals, slots_for
from fopru_graph.processes.slurm import Submit
from fopru_graph.sweep.cells import Cell, Status, SweepFolder
from fopru_graph.sweep.workers import Worker

FOLDER = "slurm"
LEASE = 60.0  # seconds that a task has to notice that its sweep is not the current one, and to end
_CURRENT = "current"  # the name of the current sweep; empty once it was stopped on request
_LOOK = 0.5  # seconds between looks at the records


def run_share(folder: str, name: str) -> None:
    """What a task of the array does: run the cells of a share."""
    sweep = Path(folder)
    share = json.loads((sweep / f"{name}.json").read_text(encoding="utf-8"))
    os.chdir(share["cwd"])
    # Slurm's time limit announces itself by SIGUSR2, which submitit asks for.
    with StopSignals(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2) as stop:

        def stop_if_not_current() -> None:
            if _current(sweep) != sweep.name:
                stop.count += 2

        def why_stopped() -> str | None:
            """If this were not an attempt, a cell that takes longer than a task may would be tried for ever."""
            return "its worker was stopped or ran out of time" if _current(sweep) else None

        cells = SweepFolder(Path(share["out"]), [Cell(**cell) for cell in share["cells"]])
        Worker(cells, slots_for(1, share["device"]), stop, stop_if_not_current, why_stopped).run()


def submitter(kind: str, parameters: Mapping[str, Any]) -> Submit:
    """How to submit the array of a sweep: see `fopru_graph.processes.slurm.submitter`."""
    return slurm.submitter(kind, parameters, run_share, "fopru-sweep", "--executor")


class Array:
    """A sweep whose cells are run by the tasks of arrays.

    Args:
        folder: the cells, in a folder on a file system that all machines share.
        submit: see `submitter`.
        tasks: number of tasks of an array.
        stop: asks for an early end.
        on_look: called every half second while cells run.
        device: what ``--device`` says.
    """

    def __init__(
        self,
        folder: SweepFolder,
        submit: Submit,
        tasks: int,
        stop: StopSignals,
        on_look: Callable[[], None] = lambda: None,
        device: str | None = None,
    ) -> None:
        self._folder, self._submit, self._tasks, self._device = folder, submit, tasks, device
        self._stop, self._on_look = stop, on_look
        self._sweep = folder.out.resolve() / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"

    def run(self) -> None:
        """Submit arrays until no cell is pending or running.

        Raises:
            UserError: files cannot be written, an array is not accepted or begins no cell, or another sweep took over.
        """
        begin = time.monotonic()
        try:
            self._sweep.parent.mkdir(parents=True, exist_ok=True)
            self._sweep.mkdir(mode=0o700)  # submitit keeps pickles in it, and whoever can write those can run code
            self._set_current(self._sweep.name)
            while not self._stop.count:
                statuses = self._folder.statuses()
                waiting = time.monotonic() < begin + LEASE
                if any(status.state == "running" or (waiting and _may_run_elsewhere(status)) for status in statuses):
                    self._pause()
                elif pending := [status for status in statuses if status.state == "pending"]:
                    self._round(pending)
                else:
                    return
        except OSError as error:
            raise UserError(
                f"{self._sweep} cannot be written: {error.strerror}", "choose another with --out"
            ) from error

    def _round(self, pending: Sequence[Status]) -> None:
        """Run one array over all pending cells."""
        handles = self._submit(self._sweep, self._write_shares([status.cell for status in pending]))
        while not all(handle.done() for handle in handles):
            if self._stop.count or _current(self._sweep) != self._sweep.name:
                self._end_early(handles)
                return
            self._pause()
        if all(self._folder.status(status.cell).record == status.record for status in pending):
            errors = [str(error).strip() for handle in handles if (error := handle.exception()) is not None]
            why = errors[0].splitlines()[-1] if errors else "they ended at once"
            raise UserError(f"the tasks of the array began no cell: {why}", f"their logs are in {self._sweep}/submitit")

    def _write_shares(self, cells: Sequence[Cell]) -> list[str]:
        """Deal out the cells to tasks; returns the names of their shares."""
        common = {"cwd": os.getcwd(), "out": str(self._folder.out.resolve()), "device": self._device}
        before = len(list(self._sweep.glob("share-*")))
        names = [f"share-{before + task}" for task in range(min(self._tasks, len(cells)))]
        for task, name in enumerate(names):
            share = [{"label": cell.label, "argv": cell.argv, "request": cell.request}
                     for cell in cells[task :: self._tasks]]  # fmt: skip
            write_atomically(self._sweep / f"{name}.json", json.dumps(common | {"cells": share}).encode())
        return names

    def _end_early(self, handles: Sequence[Any]) -> None:
        """Take the tasks out of the queue, and wait until those that run have stopped their cells."""
        on_request = _current(self._sweep) == self._sweep.name
        if on_request:
            self._set_current("")
        for handle in handles:
            handle.cancel(check=False)
        if not on_request:
            raise UserError(f"another sweep has taken over {self._folder.out}", "let one sweep at a time use a folder")
        until = time.monotonic() + LEASE
        while time.monotonic() < until and self._stop.count < 2:
            if not any(status.state == "running" for status in self._folder.statuses()):
                return
            self._pause()

    def _set_current(self, name: str) -> None:
        write_atomically(self._sweep.parent / _CURRENT, name.encode())

    def _pause(self) -> None:
        time.sleep(_LOOK)
        self._on_look()


def _may_run_elsewhere(status: Status) -> bool:
    """Whether a cell was begun on another machine, whose lock may not be seen here, and is not known to have ended."""
    record = status.record
    return record.state == "running" and record.ended is None and record.host != socket.gethostname()


def _current(sweep: Path) -> str:
    """The name of the current sweep; that of ``sweep`` if it cannot be read just now."""
    try:
        return (sweep.parent / _CURRENT).read_text(encoding="utf-8")
    except OSError:
        return sweep.name
