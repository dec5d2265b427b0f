"""Workers on this machine: processes that end with the driver, and that are started again when they die."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.processes.process import GuardedProcess, StopSignals, end_all
from fopru_graph.scale import worker
from fopru_graph.scale.watch import LOOK, Run, Watch

_POLL = 0.05
_IDLE_DEATHS = 3  # of a worker, before any row was begun since the last one
_HINT = "finished parts are kept; make room or choose another folder with --into, and run the command again"


class LocalWorkers:
    """Makes the parts of a run by processes of this machine.

    Args:
        run: the run.
        slots: for each process what is added to its environment.
        stop: asks for an early end.
        on_look: called about every half second.
    """

    def __init__(
        self, run: Run, slots: Sequence[Mapping[str, str]], stop: StopSignals, on_look: Callable[[Watch], None]
    ) -> None:
        self._run, self._slots, self._stop, self._on_look = run, slots[: len(run.plan.parts)], stop, on_look
        self._watch = Watch(run)
        self._processes: dict[int, GuardedProcess] = {}
        self._starts = 0
        self._idle_deaths = 0
        self._told: tuple[int, int] | None = None

    def run(self) -> None:
        """Run until all parts are made, or until asked to stop. No process is left behind.

        Raises:
            UserError: nothing can be done: the message says why.
        """
        looked = float("-inf")
        try:
            for slot in range(len(self._slots)):
                self._begin(slot)
            while self._processes and not self._stop.count:
                for slot, process in list(self._processes.items()):
                    if (code := process.poll()) is not None:
                        self._ended(slot, process, code)
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self._look()
                time.sleep(_POLL)
            self._look()
        finally:
            self._run.folder.retire(self._run.path)
            end_all(list(self._processes.values()), lambda: self._stop.count > 1)

    def _look(self) -> None:
        self._watch.look()
        self._on_look(self._watch)

    def _begin(self, slot: int) -> None:
        self._starts += 1
        log = self._run.path / "logs" / f"worker{slot}.log"
        argv = [sys.executable, "-P", "-m", worker.__name__, str(self._run.path)]
        label = f"worker {slot}"
        process = GuardedProcess(label, argv, log, self._slots[slot], attempt=self._starts, hint=_HINT)
        self._processes[slot] = process

    def _ended(self, slot: int, process: GuardedProcess, code: int) -> None:
        """Start a worker again that died; one that tells why it fails would fail again."""
        del self._processes[slot]
        if code == 0:
            return
        self._watch.look()
        if code == os.EX_IOERR:
            raise self._why_not_written()
        if code == 1:
            raise UserError(f"a worker failed: {process.last_words(code)}", f"its log is {process.log}")
        self._idle_deaths = self._idle_deaths + 1 if self._watch.told == self._told else 0
        self._told = self._watch.told
        if self._idle_deaths > _IDLE_DEATHS * len(self._slots):
            raise UserError(f"workers die before they begin a row: {process.last_words(code)}", f"see {process.log}")
        self._begin(slot)

    def _why_not_written(self) -> UserError:
        """What the disk says now, for a worker that could not write why either."""
        into = self._run.job.into
        probe = self._run.path / "probe"
        try:
            write_atomically(probe, bytes(2**20))
            probe.unlink()
        except OSError as error:
            return UserError(f"{into} cannot be written: {error.strerror or error}", _HINT)
        return UserError(f"a worker could not write to {into}", _HINT)
