"""A process that ends with this one, signals that ask for an end, and the GPUs and threads that each process gets."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.processes import guard

GRACE = 15.0  # seconds that a process has to stop when it is asked to
_TAIL_BYTES, _TAIL_LINES = 4096, 5
_LAUNCHER = re.compile(
    r"((LOCAL_|GROUP_|ROLE_|NODE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT))$|(TORCHELASTIC|ACCELERATE)_"
)  # names of variables that launchers set for their processes


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a launcher has said of its processes: for a child that works on its own."""
    return {name: value for name, value in environment.items() if not _LAUNCHER.match(name)}


class GuardedProcess:
    """A process in a process group of its own. It ends when this process does, by kill -9 too.

    Args:
        label: what it is, for messages.
        argv: its command.
        log: file that its output is appended to, after a line that says when and how it was started.
        environment: what is added to this process's environment, without what a launcher has said of this process.
        lock: a file descriptor that it shares, so that its lock is held until the last of its processes ends.
        attempt: how often it was started.
        hint: what to do if it cannot be started.

    Raises:
        UserError: the log cannot be written, or no process can be started.
    """

    def __init__(
        self,
        label: str,
        argv: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        lock: int | None = None,
        attempt: int = 1,
        hint: str | None = None,
    ) -> None:
        self.log = log
        self._code: int | None = None
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                head = f"--- {time.strftime('%F %T')}, attempt {attempt}: {shlex.join(argv)}\n"
                stream.write(head.encode(errors="surrogateescape"))
                stream.flush()
                self._offset = stream.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, *argv],
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=without_launcher(os.environ) | dict(environment),
                    process_group=0,
                    pass_fds=[] if lock is None else [lock],
                )
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{label} cannot be started with its log {log}: {reason}", hint) from error

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        if self._code is None and (code := self._process.poll()) is not None:
            self._code = 128 - code if code > 128 else code
            self._signal(signal.SIGKILL)  # its children may still run
            if self._process.stdin is not None:
                self._process.stdin.close()
        return self._code

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        if self._code is None:
            self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, with all its children."""
        if self._code is None:
            self._signal(signal.SIGKILL)

    def last_words(self, code: int) -> str:
        """Why it ended with this code: the last lines of its log."""
        how = f"exit code {code}"
        if code < 0:
            how = f"killed by signal {-code}"
            if code == -signal.SIGKILL:
                how += ", as the system does when memory runs out"
        try:
            with self.log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._offset, size - _TAIL_BYTES))
                lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError as error:
            lines = [f"its log cannot be read: {error.strerror}"]
        return "\n".join([*lines[-_TAIL_LINES:], how])

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            os.killpg(self._process.pid, number)


class StopSignals:
    """Counts signals that ask for an end: after the first, processes are asked to stop, after the second killed.

    Args:
        numbers: of the signals; SIGINT and SIGTERM if there are none.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers or (signal.SIGINT, signal.SIGTERM)
        self._handlers: dict[int, Any] = {}  # those of before
        self.count = 0

    def __enter__(self) -> StopSignals:
        self._handlers = {number: signal.signal(number, self._add) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _add(self, *_: object) -> None:
        self.count += 1


def end_all(processes: Sequence[GuardedProcess], hurry: Callable[[], bool]) -> None:
    """Ask all processes to stop, and kill those that have not after `GRACE` seconds, or once ``hurry`` says so."""
    for process in processes:
        process.interrupt()
    _wait_for(processes, hurry)
    for process in processes:
        process.kill()
    _wait_for(processes, lambda: False)


def _wait_for(processes: Sequence[GuardedProcess], hurry: Callable[[], bool]) -> None:
    until = time.monotonic() + GRACE
    while any(process.poll() is None for process in processes) and time.monotonic() < until and not hurry():
        time.sleep(0.02)


def visible_gpus() -> list[str]:
    """The CUDA devices that may be used, as CUDA_VISIBLE_DEVICES names them; asks the driver's own tool, not torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def slots_for(jobs: int | None, device: str | None) -> list[dict[str, str]]:
    """For each of the processes that run at the same time, what to add to its environment.

    Each gets another GPU, as long as there are enough, and one CPU thread, unless it alone uses a GPU.

    Args:
        jobs: how many run at the same time. None: one a GPU; without a GPU two, if there are two cores.
        device: the value of ``--device``.
    """
    gpus = visible_gpus() if device in (None, "auto", "cuda") else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = device not in (None, "auto", "cpu", "cuda")  # e.g. cuda:1
    count = jobs or len(gpus) or (1 if named else min(2, cores))
    threads = {} if "OMP_NUM_THREADS" in os.environ or (count == 1 and (gpus or named)) else {"OMP_NUM_THREADS": "1"}
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}) for number in range(count)]
