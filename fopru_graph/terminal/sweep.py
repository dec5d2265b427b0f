"""A sweep on the terminal: where its cells stand while it runs, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fopru_graph.terminal.console import console, simple_table, stdout_console
from fopru_graph.terminal.format import percent

_COLOURS = {"done": "green", "running": "cyan", "pending": "dim", "failed": "red", "lost": "yellow"}
_SHOWN = 12  # cells in the live table: the running ones, then those that ended last

Row = Mapping[str, Any]  # label, pipeline, task, ratio, settings, state, accuracy, n, errors, started, ended, error


class SweepProgress:
    """Shows the cells on stderr: a live table on a terminal, elsewhere a line for every cell that ends.

    Args:
        places: how many cells run at the same time, for the time that is left.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._begin = time.time()
        self._said: dict[str, str] | None = None
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> SweepProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Take the present states of all cells."""
        if self._live is not None:
            self._live.update(Group(Text.from_markup(self._head(rows)), _table(_interesting(rows))))
            return
        before, self._said = self._said, {row["label"]: row["state"] for row in rows}
        if before is None:
            console.print(self._head(rows), soft_wrap=True)
            return
        for row in rows:
            if row["state"] in ("done", "failed", "lost") and before.get(row["label"]) != row["state"]:
                ended = sum(state in ("done", "failed", "lost") for state in self._said.values())
                line = f"{ended}/{len(rows)} {escape(row['label'])}: {row['state']}"
                line += f", accuracy {100 * row['accuracy']:.1f} % of {row['n']}" if row["accuracy"] is not None else ""
                console.print(line + self._left(rows), soft_wrap=True)

    def _head(self, rows: Sequence[Row]) -> str:
        count = Counter(row["state"] for row in rows)
        parts = [f"[{colour}]{count[state]} {state}[/]" for state, colour in _COLOURS.items() if count[state]]
        return f"{len(rows)} cells: {', '.join(parts)}{self._left(rows)}"

    def _left(self, rows: Sequence[Row]) -> str:
        """The time that is left, from the mean time of the cells that have ended since the start."""
        ended = [row["ended"] - row["started"] for row in rows if row["ended"] and (row["started"] or 0) > self._begin]
        running = [time.time() - row["started"] for row in rows if row["state"] == "running"]
        waiting = sum(row["state"] == "pending" for row in rows)
        if not ended or not (running or waiting):
            return ""
        mean = sum(ended) / len(ended)
        seconds = (mean * waiting + sum(max(0.0, mean - spent) for spent in running)) / self._places
        return f", about {_duration(seconds)} left"


def show_sweep(rows: Sequence[Row]) -> None:
    """One row a cell on stdout, and on stderr why cells failed."""
    stdout_console().print(_table(rows))
    for row in rows:
        if row["state"] in ("failed", "lost"):
            console.print(
                f"[red]{escape(row['label'])} {row['state']}:[/] {escape(row['error'] or '')}", soft_wrap=True
            )


def _interesting(rows: Sequence[Row]) -> list[Row]:
    running = [row for row in rows if row["state"] == "running"]
    ended = sorted(
        (row for row in rows if row["state"] in ("done", "failed", "lost")), key=lambda row: row["ended"] or 0
    )
    return running[:_SHOWN] + ended[::-1][: max(0, _SHOWN - len(running))]


def _table(rows: Sequence[Row]) -> Table:
    settings = any(row["settings"] for row in rows)
    table = simple_table("pipeline", "task", ">ratio", *(["settings"] if settings else []), "state", ">accuracy", ">n",
                         ">errors", ">time")  # fmt: skip
    for row in rows:
        table.add_row(
            escape(row["pipeline"]),
            escape(row["task"]),
            "as written" if row["ratio"] is None else percent(row["ratio"]),
            *([escape(" ".join(f"{key}={value}" for key, value in row["settings"].items()))] if settings else []),
            f"[{_COLOURS[row['state']]}]{row['state']}[/]",
            "–" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f}",
            "–" if row["n"] is None else str(row["n"]),
            f"[red]{row['errors']}[/]" if row["errors"] else "–" if row["errors"] is None else "0",
            _spent(row),
        )
    return table


def _spent(row: Row) -> str:
    if row["started"] is None or row["state"] == "pending":
        return "–"
    return _duration((row["ended"] or time.time()) - row["started"])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
