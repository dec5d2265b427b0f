"""Rounds over all rows, each worker a process of its own that waits while the others answer."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.peers import Row, Worker

LOAD_SECONDS, ANSWER_SECONDS = 600.0, 300.0
_ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A worker did not answer; the message is one sentence."""


class Process:
    """A worker's process, a line of JSON in, a line of JSON out; it prints to ``log`` and imports from ``code``."""

    def __init__(self, command: Sequence[str], threads: int, log: Path, code: Path = _ROOT) -> None:
        self._log = log
        self._lines: queue.Queue[str | None] = queue.Queue()
        number = str(threads)
        environment = os.environ | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "PYTHONPATH": str(code)}
        environment["PYTHONUNBUFFERED"] = "1"  # else what was printed before an error follows it in the log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command,
                cwd=code,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next line.

        Raises:
            Failed: none came, or it says that the answer failed.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise Failed(f"it did not answer in {seconds:g} s") from None
        if line is None:
            raise Failed(self._end())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Failed(str(reply["error"]))
        return reply

    def ask(self, request: Mapping[str, Any] | None, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            Failed: see `receive`.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._end()) from None
        return self.receive(seconds)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _end(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        said = self._log.read_text(errors="replace").strip().splitlines()
        return f"it ended with status {code}: {said[-1][:200] if said else 'it says nothing'}"


@dataclass(eq=False)
class Measured:
    """What was measured of a row: milliseconds of every round, peak bytes, what its worker said, why it failed."""

    row: Row
    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    failed: str | None = None


Start = Callable[[Worker], Process]


def measure(
    rows: Sequence[Row], start: Start, rounds: int, new_tokens: int, on_round: Callable[[list[Measured], str], None]
) -> list[Measured]:
    """Measure ``rows`` in ``rounds`` rounds of shuffled order; a row that fails says why, and the others go on.

    Before the rounds every row answers once to warm up and once for its peak memory.

    Args:
        rows: what to measure.
        start: starts a worker's process; may raise `Failed`.
        rounds: how often every row answers.
        new_tokens: length of every answer.
        on_round: called with everything and a text that says how far it is, after every round.
    """
    measured = [Measured(row) for row in rows]
    processes: dict[Worker, Process] = {}
    try:
        for worker in dict.fromkeys(row.worker for row in rows):
            on_round(measured, f"loading {worker.peer} {worker.weights}")
            _load(worker, [entry for entry in measured if entry.row.worker == worker], start, processes)
        for number in range(-2, rounds):  # the two before the first count for no time
            order = [entry for entry in measured if entry.failed is None]
            random.Random(number).shuffle(order)
            for entry in order:
                _ask(entry, processes[entry.row.worker], number, new_tokens)
            on_round(measured, f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
    finally:
        for process in processes.values():
            process.close()
    return measured


def _load(worker: Worker, entries: list[Measured], start: Start, processes: dict[Worker, Process]) -> None:
    try:
        processes[worker] = start(worker)
        said = processes[worker].receive(LOAD_SECONDS)
    except Failed as error:
        for entry in entries:
            entry.failed = str(error)
        return
    for entry in entries:
        entry.versions, entry.note = said["versions"], said["note"]


def _ask(entry: Measured, process: Process, number: int, new_tokens: int) -> None:
    request = {"picture": number + 2, "new_tokens": new_tokens, "keep": entry.row.keep, "peak": number == -1}
    try:
        reply = process.ask(request)
    except Failed as error:
        entry.failed = str(error)
        return
    if number == -1:
        entry.peak_bytes = reply["peak_bytes"]
    elif number >= 0:
        entry.ttft.append(reply["ttft_ms"])
        if reply["tpot_ms"] is not None:
            entry.tpot.append(reply["tpot_ms"])
