"""The two consoles of the command line, and messages to people: problems, errors, warnings.

Progress and messages go to stderr, results to stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fopru_graph.graph import Problem

console = Console(stderr=True, highlight=False)


def stdout_console() -> Console:
    """The console of results. In a pipe it is 200 columns wide, so that no table breaks there."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def simple_table(*columns: str, title: str | None = None) -> Table:
    """A borderless table; columns whose name begins with ``>`` are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold dim")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def show_problems(problems: Iterable[Problem], file: str) -> None:
    """Print each problem of a pipeline file on stderr: file, line, code and node, then the message and the hint."""
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        location = f"{file}:{problem.line}" if problem.line else file
        socket = ".".join(part for part in (problem.node, problem.input) if part)
        head = f"[bold]{escape(location)}[/] [{colour}]{problem.severity}[/] [dim]{problem.code}[/] {escape(socket)}"
        console.print(f"{head}\n    {escape(problem.message)}", soft_wrap=True)
        if problem.hint:
            console.print(f"    [cyan]hint:[/] {escape(problem.hint)}", soft_wrap=True)


def show_failure(message: str, hint: str | None = None) -> None:
    """Print an error on stderr, and its hint unless the message contains it."""
    console.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    if hint and hint not in message:
        console.print(f"[cyan]hint:[/] {escape(hint)}", soft_wrap=True)


def show_warning(message: str) -> None:
    """Print a warning on stderr; the program goes on."""
    console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)
