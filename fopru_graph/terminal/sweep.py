"""A sweep on the terminal: where its cells stand while it runs, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fopru_graph.terminal.console import console, fits, folding, say, simple_table, stdout_console
from fopru_graph.terminal.format import ratio_text

_COLOURS = {"done": "green", "running": "cyan", "pending": "dim", "failed": "red", "lost": "yellow"}
_ENDED = ("done", "failed", "lost")
_SHOWN = 12  # cells in the live table: those that run, then those that ended last

Cell = Mapping[str, Any]  # label, pipeline, task, ratio, settings, state, accuracy, n, errors, started, ended, error


class SweepProgress:
    """Shows the cells on stderr: a live table on a terminal, elsewhere a line for every cell that ends.

    Args:
        slots: how many cells run at the same time, for the time that is left.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._begin = time.time()
        self._shown: dict[str, str] | None = None  # the states when they were last shown
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> SweepProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, cells: Sequence[Cell]) -> None:
        """Show the present states of all cells."""
        if self._live is not None:
            self._live.update(Group(Text.from_markup(self._heading(cells)), _table(_most_recent(cells), console)))
            return
        before, self._shown = self._shown, {cell["label"]: cell["state"] for cell in cells}
        if before is None:
            console.print(self._heading(cells), soft_wrap=True)
            return
        for cell in cells:
            if cell["state"] in _ENDED and before.get(cell["label"]) != cell["state"]:
                ended = sum(state in _ENDED for state in self._shown.values())
                line = f"{ended}/{len(cells)} {cell['label']}: {cell['state']}"
                if cell["accuracy"] is not None:
                    line += f", accuracy {100 * cell['accuracy']:.1f} % of {cell['n']}"
                say(line + self._time_left(cells))

    def _heading(self, cells: Sequence[Cell]) -> str:
        count = Counter(cell["state"] for cell in cells)
        parts = [f"[{colour}]{count[state]} {state}[/]" for state, colour in _COLOURS.items() if count[state]]
        return f"{len(cells)} cells: {', '.join(parts)}{self._time_left(cells)}"

    def _time_left(self, cells: Sequence[Cell]) -> str:
        """An estimate from the mean time of the cells that have ended since the start."""
        ended = [cell["ended"] - cell["started"] for cell in cells
                 if cell["ended"] and (cell["started"] or 0) > self._begin]  # fmt: skip
        running = [time.time() - cell["started"] for cell in cells if cell["state"] == "running"]
        pending = sum(cell["state"] == "pending" for cell in cells)
        if not ended or not (running or pending):
            return ""
        mean = sum(ended) / len(ended)
        seconds = (mean * pending + sum(max(0.0, mean - spent) for spent in running)) / self._slots
        return f", about {_duration(seconds)} left"


def show_sweep(cells: Sequence[Cell]) -> None:
    """A table of all cells on stdout, and on stderr why cells or their samples failed."""
    out = stdout_console()
    out.print(_table(cells, out))
    for cell in cells:
        if cell["error"] and cell["state"] in _ENDED:
            colour = "yellow" if cell["state"] == "done" else "red"
            say((f"{cell['label']} {cell['state']}:", colour), f" {cell['error']}")


def _most_recent(cells: Sequence[Cell]) -> list[Cell]:
    running = [cell for cell in cells if cell["state"] == "running"]
    ended = sorted((cell for cell in cells if cell["state"] in _ENDED), key=lambda cell: -(cell["ended"] or 0))
    return [*running, *ended][:_SHOWN]


def _table(cells: Sequence[Cell], out: Console) -> Table:
    """The cells as a table; on a terminal too narrow for it their settings stand below the pipelines' names."""
    whole = _with_settings(cells, beside=True)
    return whole if fits(whole, out) else _with_settings(cells, beside=False)


def _with_settings(cells: Sequence[Cell], beside: bool) -> Table:
    beside = beside and any(cell["settings"] for cell in cells)
    table = simple_table("pipeline", *(["settings"] if beside else []), "task", ">ratio", "state", ">accuracy", ">n",
                         ">errors", ">time")  # fmt: skip
    for cell in cells:
        settings = escape(" ".join(f"{key}={value}" for key, value in cell["settings"].items()))
        below = f"\n  [dim]{settings}[/]" if settings and not beside else ""
        table.add_row(
            escape(cell["pipeline"]) + below,
            *([settings] if beside else []),
            escape(cell["task"]),
            ratio_text(cell["ratio"]),
            f"[{_COLOURS[cell['state']]}]{cell['state']}[/]",
            "–" if cell["accuracy"] is None else f"{100 * cell['accuracy']:.1f}",
            "–" if cell["n"] is None else str(cell["n"]),
            f"[red]{cell['errors']}[/]" if cell["errors"] else "–" if cell["errors"] is None else "0",
            _time_spent(cell),
        )
    return folding(table, "pipeline", "settings", "task")


def _time_spent(cell: Cell) -> str:
    if cell["started"] is None or cell["state"] == "pending":
        return "–"
    return _duration((cell["ended"] or time.time()) - cell["started"])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
