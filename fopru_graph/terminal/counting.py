"""How far a command is that does one thing many times: a bar, or a line now and then."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fopru_graph.terminal.console import console, say
from fopru_graph.terminal.stdout import stdout

_EVERY = 10.0  # seconds between two lines on something that is no terminal


class Counting:
    """Counts on stderr: as a bar on a terminal, unless results appear there too; a line now and then elsewhere.

    Args:
        total: how many things there are.
        what: they are called.
    """

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what, self._done = total, what, 0
        self._started = self._last_line = time.monotonic()
        self._results_shown = console.is_terminal and stdout.isatty()
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or self._results_shown,
        )
        self._task = self._bar.add_task(what, total=total, note="")

    def __enter__(self) -> Counting:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, note: str = "") -> None:
        """One more is done; ``note`` is shown beside the speed."""
        self._done += 1
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        text = ", ".join(part for part in (f"{rate:.2f} {self._what}/s", note) if part)
        self._bar.update(self._task, completed=self._done, note=text)
        if not console.is_terminal and now - self._last_line > _EVERY:
            self._last_line = now
            say(f"{self._done}/{self._total} {self._what}, {text}, {(self._total - self._done) / rate:.0f} s left")
