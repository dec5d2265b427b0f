"""A table once, and its four forms: for the page, Markdown, LaTeX, and a CSV of unrounded figures."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fopru_graph.report.latex import escaped, tabular
from fopru_graph.report.page.html import Markup, element, join

_MARKS = {1: "▲", -1: "▼", 0: ""}
_WORDS = {1: "clearly higher", -1: "clearly lower"}


@dataclass(frozen=True)
class Entry:
    """What stands in one cell of a table.

    ``note`` stands small below it, in lines; ``heat`` in [0, 1] colours it; ``sign`` marks it as clearly higher (1) or
    lower (−1).
    """

    text: str
    bold: bool = False
    underline: bool = False
    note: str = ""
    heat: float | None = None
    sign: int = 0


Row = tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """Rows in blocks that rules divide; the first ``heads`` columns say what a row is. ``records`` are for the CSV."""

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[Row, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    heads: int = 2

    @property
    def rows(self) -> Iterator[Row]:
        """All rows."""
        return (row for block in self.blocks for row in block)


def best(values: Sequence[float | None]) -> list[bool]:
    """Which values are the largest of at least two; all of those that are equal as they are printed."""
    known = [round(value, 4) for value in values if value is not None]
    if len(known) < 2:
        return [False] * len(values)
    return [value is not None and round(value, 4) == max(known) for value in values]


def better(value: float | None, reference: float | None) -> bool:
    """Whether a share is larger than another as both are printed, in percent with two decimals."""
    return value is not None and reference is not None and round(value, 4) > round(reference, 4)


def to_html(table: Table) -> Markup:
    """The table for the page, in a box of its own that scrolls where the page is too narrow."""
    kinds = ["head"] * table.heads + [None] * (len(table.columns) - table.heads)
    pairs = zip(table.columns, kinds, strict=True)
    head = element("tr", *(element("th", name, scope="col", class_=kind) for name, kind in pairs))
    bodies = [element("tbody", *(_html_row(table, row) for row in block)) for block in table.blocks]
    kind = "pinned" if table.heads == 1 else None
    inside = element("table", element("caption", table.title), element("thead", head), *bodies, class_=kind)
    scroll = element("div", inside, class_="scroll", tabindex="0", role="region", aria_label=table.title)
    return element("div", scroll, element("p", table.caption, class_="note"), class_="table")


def _html_row(table: Table, row: Row) -> Markup:
    cells = []
    for place, entry in enumerate(row):
        content = join(entry.text)
        content = element("strong", content) if entry.bold else content
        content = element("u", content) if entry.underline else content
        if entry.sign:
            content = join(content, " ", element("span", _MARKS[entry.sign], title=_WORDS[entry.sign], class_="sign"))
        note = element("small", entry.note) if entry.note else None
        heat = f"--heat:{entry.heat:.3f}" if entry.heat is not None else None
        kind = {1: "higher", -1: "lower"}.get(entry.sign, "heat" if heat else None)
        if place < table.heads:
            cells.append(element("th", content, note, scope="row"))
        else:
            cells.append(element("td", content, note, class_=kind, style=heat))
    return element("tr", *cells)


def to_markdown(table: Table) -> str:
    """A GitHub table under its title, the caption below; bold and underlined as on the page."""
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
    return " ".join(part for part in (text, _MARKS[entry.sign], note) if part)


def _plain(text: str) -> str:
    """Text that Markdown neither formats nor takes for HTML."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def to_latex(table: Table) -> str:
    r"""A ``tabular`` of booktabs; comments on top say how to ``\input`` it."""
    comments = [
        r"With \usepackage{booktabs} in the preamble, and \usepackage{graphicx} where the table is too wide:",
        rf"  \resizebox{{\linewidth}}{{!}}{{\input{{{table.name}.tex}}}}",
        rf"  \caption{{{escaped(f'{table.title}. {table.caption}')}}}",
    ]
    columns = "l" * table.heads + "r" * (len(table.columns) - table.heads)
    head = " & ".join(map(escaped, table.columns))
    blocks = [[" & ".join(map(_latex, row)) for row in block] for block in table.blocks]
    return tabular(columns, head, blocks, comments)


def _latex(entry: Entry) -> str:
    text = escaped(entry.text)
    text = rf"\textbf{{{text}}}" if entry.bold else text
    text = rf"\underline{{{text}}}" if entry.underline else text
    mark = escaped(_MARKS[entry.sign])
    note = rf"{{\scriptsize ({escaped(' '.join(entry.note.split()))})}}" if entry.note else ""
    return " ".join(part for part in (text, mark, note) if part)


def to_csv(table: Table) -> str:
    """The records, one a line; what is not known is empty. Text that a spreadsheet would run as a formula is quoted."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(table.records[0]) if table.records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in record.items()} for record in table.records)
    return stream.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
