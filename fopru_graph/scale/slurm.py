"""Workers on a Slurm cluster: every task of an array makes a fixed share of the parts.

Nothing relies on locks, which on some network file systems only the machine sees that holds them: no part is in two
shares, the end of a task is what Slurm says, and a task ends when it sees that its run is not the current one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.processes import slurm
from fopru_graph.processes.process import StopSignals
from fopru_graph.processes.slurm import Submit
from fopru_graph.scale.folder import LEASE, registered, writing
from fopru_graph.scale.plan import Part
from fopru_graph.scale.watch import LOOK, Run, Watch
from fopru_graph.scale.worker import Worker, failures_told


def submitter(kind: str, parameters: Mapping[str, Any]) -> Submit:
    """How to submit the array of a map: see `fopru_graph.processes.slurm.submitter`."""
    return slurm.submitter(kind, parameters, run_share, "fopru-map", "--engine")


def run_share(folder: str, name: str) -> None:
    """What a task of the array does: make the parts of a share."""
    run = Path(folder)
    numbers = set(json.loads((run / f"{name}.json").read_text(encoding="utf-8")))
    # Slurm's time limit announces itself by SIGUSR2, which submitit asks for.
    with (
        StopSignals(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2) as stop,
        failures_told(run),
        registered(run),
    ):
        worker = Worker(run, stop)
        for part in worker.plan.parts:
            if part.number in numbers:
                worker.make(part)


class Array:
    """Makes the parts of a run by tasks of arrays.

    Args:
        run: the run; its folder is on a file system that all machines share.
        submit: see `submitter`.
        tasks: number of tasks of an array.
        stop: asks for an early end.
        on_look: called about every half second.
    """

    def __init__(
        self, run: Run, submit: Submit, tasks: int, stop: StopSignals, on_look: Callable[[Watch], None]
    ) -> None:
        self._run, self._submit, self._tasks, self._stop, self._on_look = run, submit, tasks, stop, on_look
        self._watch = Watch(run)
        self._rounds = 0

    def run(self) -> None:
        """Submit arrays until all parts are made.

        Raises:
            UserError: files cannot be written, an array is not accepted or begins no row, or a task tells why it fails.
        """
        handles: Sequence[Any] = ()
        try:
            with writing(self._run.folder.path):
                while not self._stop.count and (left := self._watch.left()):
                    told = self._watch.told
                    handles = self._submit(self._run.path, self._write_shares(left))
                    while not all(handle.done() for handle in handles) and not self._stop.count:
                        self._pause()
                    self._pause()
                    if self._watch.told == told and not self._stop.count:
                        raise self._why_nothing(handles)
        finally:
            self._run.folder.retire(self._run.path)
            self._end(handles)

    def _write_shares(self, left: Sequence[Part]) -> list[str]:
        """Deal out the parts to tasks; returns the names of their shares."""
        self._rounds += 1
        names = [f"share-{self._rounds}-{task}" for task in range(min(self._tasks, len(left)))]
        for task, name in enumerate(names):
            share = [part.number for part in left[task :: len(names)]]
            write_atomically(self._run.path / f"{name}.json", json.dumps(share))
        return names

    def _why_nothing(self, handles: Sequence[Any]) -> UserError:
        errors = [str(error).strip() for handle in handles if (error := handle.exception()) is not None]
        why = errors[0].splitlines()[-1] if errors else "they ended at once"
        return UserError(f"the tasks of the array began no row: {why}", f"their logs are in {self._run.path}/submitit")

    def _end(self, handles: Sequence[Any]) -> None:
        """Take tasks out of the queue, and wait until those that run have seen that they are to end."""
        if all(handle.done() for handle in handles):
            return
        for handle in handles:
            handle.cancel(check=False)
        until = time.monotonic() + LEASE
        while any((self._run.path / "workers").iterdir()) and time.monotonic() < until and self._stop.count < 2:
            time.sleep(LOOK)

    def _pause(self) -> None:
        time.sleep(LOOK)
        self._watch.look()
        self._on_look(self._watch)
