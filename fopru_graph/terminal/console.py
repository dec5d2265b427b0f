"""The two consoles of the command line, and messages to people: problems, errors, warnings.

Progress and messages go to stderr, results to stdout. What a user wrote comes out as it was written: no markup, no
emoji codes, no highlighting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table

from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    from fopru_graph.graph import Problem

console = Console(stderr=True, highlight=False, emoji=False)


def stdout_console() -> Console:
    """The console of results. In a pipe it is 200 columns wide, so that no table breaks there."""
    return Console(file=stdout, highlight=False, emoji=False, width=None if stdout.isatty() else 200)  # type: ignore[arg-type]


def say(*parts: str | tuple[str, str], to: Console = console) -> None:
    """Write a line on stderr, or on another console. A part is a text, or a text and its style.

    Texts are written as they are, tabs included: neither wrapped nor read as markup.
    """
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    segments = [Segment(text, to.get_style(style) if style else None) for text, style in pairs]
    to.print(Segments([*segments, Segment.line()]), soft_wrap=True)


def simple_table(*columns: str, title: str | None = None) -> Table:
    """A borderless table; columns whose name begins with ``>`` are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold dim")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def folding(table: Table, *names: str) -> Table:
    """The table where only the columns ``names`` may break, so that numbers stay whole on a narrow terminal."""
    for column in table.columns:
        column.no_wrap = column.header not in names
        column.overflow = "fold"
    return table


def fits(table: Table, out: Console) -> bool:
    """Whether no column of the table has to break."""
    return Measurement.get(out, out.options.update(max_width=10 * out.width), table).maximum <= out.width


def show_problems(problems: Iterable[Problem], file: str) -> None:
    """Print each problem of a pipeline file on stderr: file, line, code and node, then the message and the hint."""
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        location = f"{file}:{problem.line}" if problem.line else file
        socket = ".".join(part for part in (problem.node, problem.input) if part)
        say((location, "bold"), " ", (problem.severity, colour), " ", (problem.code, "dim"), f" {socket}")
        say(f"    {problem.message}")
        if problem.hint:
            say("    ", ("hint:", "cyan"), f" {problem.hint}")


def show_failure(
    message: str,
    hint: str | None = None,
    location: str | None = None,
    node: str | None = None,
    raised_at: str | None = None,
) -> None:
    """Print on stderr why the command fails, and its hint unless the message contains it.

    With ``--json`` it is also what a command without a result prints, with the failing ``node``, its ``location`` and,
    for a node of the user's own, the line of its code.
    """
    stdout.note_error(message, hint, location=location, node=node, raised_at=raised_at)
    say(("error:", "red"), f" {message}")
    if hint and hint not in message:
        say(("hint:", "cyan"), f" {hint}")


def show_warning(message: str) -> None:
    """Print a warning on stderr; the program goes on."""
    say(("warning:", "yellow"), f" {message}")
