"""How far a run is, read off its folder: the same for workers here, on Slurm and on Ray."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.scale.folder import MapFolder
from fopru_graph.scale.plan import Job, Part, Plan
from fopru_graph.scale.worker import FAILED

LOOK = 0.5  # seconds between looks


@dataclass(frozen=True)
class Run:
    """A run as its driver has it: its folder in that of the results, what is asked for, and the parts to make."""

    path: Path
    folder: MapFolder
    job: Job
    plan: Plan

    def made(self) -> int:
        """The number of rows in the parts that are made."""
        state = self.path / "state"
        return sum(part.rows for part in self.plan.parts if (state / f"{part.number}.done").exists())


class Watch:
    """Looks at what the workers of a run tell.

    Attributes:
        rows: answered rows, those of parts that are not written yet included.
        told: how many parts are done, and how much workers have told of others; it changes with every batch.
        changed: when it changed last, by the monotonic clock.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._state = run, run.path / "state"
        self._rows = {part.number: part.rows for part in run.plan.parts}
        self._done: set[int] = set()
        self.rows, self.told = 0, (0, 0)
        self.changed = time.monotonic()

    def look(self) -> None:
        """Look again.

        Raises:
            UserError: a worker has told why nothing can be done, or another run has taken over.
        """
        begun = {}
        with os.scandir(self._state) as entries:
            for entry in entries:
                number, _, kind = entry.name.partition(".")
                if kind == "done":
                    self._done.add(int(number))
                elif kind == "rows":
                    begun[int(number)] = entry
        running = {number: entry for number, entry in begun.items() if number not in self._done}
        told = len(self._done), sum(entry.stat().st_size for entry in running.values())
        if told != self.told:
            self.told, self.changed = told, time.monotonic()
        done = sum(self._rows[number] for number in self._done)
        self.rows = done + sum(_begun(Path(entry.path), self._rows[number]) for number, entry in running.items())
        if (failure := self._failure()) is not None:
            raise failure
        if not self._run.folder.is_current(self._run.path):
            raise UserError(f"another run has taken over {self._run.job.into}", "let one run at a time use a folder")

    def left(self) -> list[Part]:
        """The parts that are not made, when it was looked last."""
        return [part for part in self._run.plan.parts if part.number not in self._done]

    def _failure(self) -> UserError | None:
        with contextlib.suppress(OSError, ValueError):
            told = json.loads((self._run.path / FAILED).read_text(encoding="utf-8"))
            return UserError(told["message"], told["hint"])
        return None


def _begun(trail: Path, rows: int) -> int:
    """How many rows of a part the last worker at it has answered."""
    with trail.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 64))
        lines = stream.read().decode("ascii").split("\n")
    last = lines[-2] if len(lines) > 1 else ""
    return rows if last == "end" else int(last.split()[0]) if last not in ("", "begin") else 0
