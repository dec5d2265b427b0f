"""The loop of a sweep's worker: it claims cells, runs a few at the same time, and records how they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from fopru_graph.errors import UserError
from fopru_graph.processes.process import GuardedProcess, StopSignals, end_all
from fopru_graph.sweep.cells import LOGS, Claim, SweepFolder

_POLL, _LOOK = 0.1, 0.5  # seconds between looks at the processes, and between calls of ``on_look``


class Worker:
    """Runs the pending cells of a folder, as many at the same time as there are ``slots``.

    Args:
        folder: the cells, and where their results, records and logs go.
        slots: for each cell of those that run at the same time, what is added to its environment.
        stop: asks for an early end.
        on_look: called every half second while cells run.
        why_stopped: the error of cells that are stopped early; None if the user wanted it, which costs them no attempt.
    """

    def __init__(
        self,
        folder: SweepFolder,
        slots: Sequence[Mapping[str, str]],
        stop: StopSignals,
        on_look: Callable[[], None] = lambda: None,
        why_stopped: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._folder, self._stop, self._on_look, self._why_stopped = folder, stop, on_look, why_stopped
        self._free = list(slots)
        self._running: list[tuple[Claim, GuardedProcess, Mapping[str, str]]] = []

    def run(self) -> None:
        """Run until no cell is pending or running anywhere, or until asked to stop. No process is left behind.

        Raises:
            UserError: records or logs cannot be written.
        """
        looked = float("-inf")
        try:
            while not self._stop.count:
                self._collect()
                self._begin()
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    self._on_look()
                if not self._running and not self._folder.unfinished():
                    return
                time.sleep(_POLL)
        finally:
            self._wind_down()

    def _begin(self) -> None:
        while self._free and (claim := self._folder.claim()) is not None:
            slot = self._free.pop()
            try:
                process = self._process(claim, slot)
            except UserError:
                self._folder.release(claim)
                raise
            self._running.append((claim, process, slot))

    def _process(self, claim: Claim, slot: Mapping[str, str]) -> GuardedProcess:
        cell = claim.cell
        return GuardedProcess(
            cell.label,
            cell.argv,
            self._folder.out / LOGS / f"{cell.label}.log",
            slot,
            lock=claim.lock,
            attempt=claim.record.attempts,
            hint="finished cells are kept; make room or choose another folder with --out, and run the command again",
        )

    def _collect(self) -> None:
        for running in list(self._running):
            claim, process, slot = running
            if (code := process.poll()) is not None:
                self._running.remove(running)
                self._free.append(slot)
                self._finish(claim, process, code)

    def _finish(self, claim: Claim, process: GuardedProcess, code: int) -> None:
        """Record an end. Exit code 3 says that samples failed; such a cell is done unless all of them did."""
        self._folder.finish(claim, code, None if code in (0, 3) else process.last_words(code))

    def _wind_down(self) -> None:
        """Ask all cells to stop, kill those that do not, and give them back."""
        processes = [process for _, process, _ in self._running]
        end_all(processes, lambda: self._stop.count > 1)
        for claim, process, _ in self._running:
            with contextlib.suppress(UserError):  # without its record the next sweep takes the cell for lost
                if (code := process.poll()) in (0, 3):
                    self._finish(claim, process, code)
                else:
                    self._folder.release(claim, self._why_stopped())
        self._running.clear()
