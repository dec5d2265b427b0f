"""What the command line shows people: progress while a pipeline runs, tables afterwards, and how figures are written.

All of it goes to stderr but streamed text, and what is printed on ``stdout_console``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from fopru_graph.graph import Problem
from fopru_graph.graph.events import (
    CacheWarning,
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    NodeText,
    RunFinished,
)

console = Console(stderr=True, highlight=False)


def stdout_console() -> Console:
    """The console of results. In a pipe it is wide, so that no table breaks there."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def simple_table(*columns: str, title: str | None = None) -> Table:
    """A borderless table; columns whose name begins with ``>`` are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold dim")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def show_problems(problems: Iterable[Problem], file: str) -> None:
    """One line a problem, with its place, and the hint below it."""
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        place = f"{file}:{problem.line}" if problem.line else file
        where = ".".join(part for part in (problem.node, problem.input) if part)
        head = f"[bold]{escape(place)}[/] [{colour}]{problem.severity}[/] [dim]{problem.code}[/] {escape(where)}"
        console.print(f"{head}\n    {escape(problem.message)}", soft_wrap=True)
        if problem.hint:
            console.print(f"    [cyan]hint:[/] {escape(problem.hint)}", soft_wrap=True)


def show_failure(message: str, hint: str | None = None) -> None:
    """One error with its hint, unless the message has it already."""
    console.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    if hint and hint not in message:
        console.print(f"[cyan]hint:[/] {escape(hint)}", soft_wrap=True)


def show_warning(message: str) -> None:
    """One thing that is not as it should be, though the program goes on."""
    console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


class RunDisplay:
    """Shows which node runs on stderr and writes streamed text to stdout as it comes."""

    def __init__(self, stream_text: bool) -> None:
        self._stream_text = stream_text
        self._out = Console(highlight=False)
        self._status: Status | None = None
        self._open_line = False
        self.streamed = ""

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, NodeStarted):
            self._spin(f"{event.node} [dim]{event.type}[/]")
        elif isinstance(event, NodeProgress):
            self._spin(f"{event.node} {event.i}/{event.n} [dim]{escape(event.text)}[/]")
        elif isinstance(event, NodeText) and self._stream_text:
            self._still()
            self.streamed += event.chunk
            self._open_line = True
            self._out.print(event.chunk, end="", markup=False, soft_wrap=True)
            self._out.file.flush()
        elif isinstance(event, CacheWarning):
            console.print(f"[yellow]cache:[/] {escape(event.node)}: {escape(event.message)}", soft_wrap=True)
        elif isinstance(event, NodeFinished | NodeFailed | RunFinished):
            self._still()
            self._end_line()

    def _end_line(self) -> None:
        """Close the line of streamed text, before a spinner or an error would write over it."""
        if self._open_line:
            self._out.print()
            self._open_line = False

    def _spin(self, text: str) -> None:
        if self._status is None:
            self._status = console.status(text, spinner="dots")
            self._status.start()
        else:
            self._status.update(text)

    def _still(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def show_summary(summary: dict[str, Any], by_products: Iterable[str]) -> None:
    """Tokens, times and memory of a run, the time of every node, and those of its outputs that are no answers."""
    tokens = summary["visual_tokens"]
    if tokens is not None:
        table = simple_table(
            ">encoded", ">kept", ">final", ">layer average", ">TTFT ms", ">TPOT ms", ">KV cache", ">peak memory"
        )
        table.title = f"[bold]visual tokens and speed[/] [dim]({summary['device']}, {summary['dtype']})[/]"
        table.add_row(
            *(str(tokens[key]) for key in ("encoded", "kept", "final", "layer_average")),
            milliseconds(summary["ttft_ms"]),
            milliseconds(summary["tpot_ms"]),
            size(summary["kv_bytes"]),
            size(summary["peak_memory_bytes"]),
        )
        console.print(table)
    table = simple_table("node", ">ms", "")
    for name, entry in summary["nodes"].items():
        table.add_row(escape(name), f"{entry['ms']:.1f}", "[dim]from cache[/]" if entry["cached"] else "")
    console.print(table)
    for name in by_products:
        console.print(f"[bold]{escape(name)}[/] {escape(str(summary['outputs'][name]))}", soft_wrap=True)


def milliseconds(value: float | None, digits: int = 1) -> str:
    """Milliseconds with ``digits`` decimals, without their unit; ``–`` for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share as a percentage of three significant digits, e.g. ``2.78 %``; ``–`` for None."""
    return "–" if share is None else f"{100 * share:.3g} %"


def size(count: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least one; ``–`` for None."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
