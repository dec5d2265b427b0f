"""A table with entries that can be marked, and its files: Markdown, LaTeX, and CSV of unrounded figures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fopru_graph.report.text_tables import csv_table, latex_escaped, latex_table


@dataclass(frozen=True)
class Entry:
    """An entry of a table.

    ``note`` stands in small lines below it. ``heat`` in [0, 1] colours it. ``sign`` marks it as clearly higher (1) or
    lower (−1) than a reference.
    """

    text: str
    bold: bool = False
    underline: bool = False
    note: str = ""
    heat: float | None = None
    sign: int = 0

    @property
    def mark(self) -> str:
        """The sign as an arrow."""
        return {1: "▲", -1: "▼"}.get(self.sign, "")


Row = tuple[Entry, ...]
NO_ENTRY = Entry("–")


@dataclass(frozen=True)
class Table:
    """Blocks of rows with a rule between them.

    The first ``heads`` columns name a row. ``records`` are the unrounded figures, all with the same keys.
    """

    template: ClassVar[str] = "table"
    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    blocks: Sequence[Sequence[Row]]
    records: Sequence[Mapping[str, Any]]
    heads: int = 2

    @property
    def rows(self) -> Iterator[Row]:
        """The rows of all blocks."""
        return (row for block in self.blocks for row in block)


def best(values: Sequence[float | None]) -> list[bool]:
    """Which values are the largest, all of them at a tie of rounded values; none if fewer than two are known."""
    known = [round(value, 4) for value in values if value is not None]
    if len(known) < 2:
        return [False] * len(values)
    return [value is not None and round(value, 4) == max(known) for value in values]


def better(value: float | None, reference: float | None) -> bool:
    """Whether a share is larger than another after both are rounded as `accuracy_text` does."""
    return value is not None and reference is not None and round(value, 4) > round(reference, 4)


def to_markdown(table: Table) -> str:
    """A GitHub table below its title and above its caption; bold and underlined as on the page."""
    lines = [
        f"### {_plain(table.title)}\n",
        "| " + " | ".join(map(_plain, table.columns)) + " |",
        "|" + "---|" * table.heads + "---:|" * (len(table.columns) - table.heads),
    ]
    lines += ["| " + " | ".join(map(_markdown, row)) + " |" for row in table.rows]
    return "\n".join([*lines, "", _plain(table.caption), ""])


def _markdown(entry: Entry) -> str:
    text = _plain(entry.text)
    text = f"**{text}**" if entry.bold else text
    text = f"<u>{text}</u>" if entry.underline else text
    note = _plain(f"({entry.note})") if entry.note else ""
    return " ".join(filter(None, (text, entry.mark, note)))


def _plain(text: str) -> str:
    """Text that Markdown neither formats nor takes for HTML."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def to_latex(table: Table) -> str:
    r"""A ``tabular`` of booktabs; comments on top say how to ``\input`` it."""
    comments = [
        rf"  \resizebox{{\linewidth}}{{!}}{{\input{{{table.name}.tex}}}}",
        rf"  \caption{{{latex_escaped(f'{table.title}. {table.caption}')}}}",
    ]
    columns = "l" * table.heads + "r" * (len(table.columns) - table.heads)
    blocks = [[tuple(map(_latex, row)) for row in block] for block in table.blocks]
    return latex_table(columns, tuple(map(latex_escaped, table.columns)), blocks, comments)


def _latex(entry: Entry) -> str:
    text = latex_escaped(entry.text)
    text = rf"\textbf{{{text}}}" if entry.bold else text
    text = rf"\underline{{{text}}}" if entry.underline else text
    note = rf"{{\scriptsize ({latex_escaped(' '.join(entry.note.split()))})}}" if entry.note else ""
    return " ".join(filter(None, (text, latex_escaped(entry.mark), note)))


def to_csv(table: Table) -> str:
    """The records, one per line."""
    return csv_table(table.records)
