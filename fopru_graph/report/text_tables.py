"""Tables as text files: LaTeX with booktabs, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ESCAPES = {character: "\\" + character for character in "&%$#_{}"}
_ESCAPES |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
_ESCAPES |= {"–": "--", "−": "$-$", "×": r"$\times$", "→": r"$\to$", "÷": r"$\div$", "▲": r"$\uparrow$"}
_ESCAPES |= {"▼": r"$\downarrow$", "≥": r"$\geq$", "<": r"\textless{}", ">": r"\textgreater{}"}
_PACKAGES = r"With \usepackage{booktabs} in the preamble, and \usepackage{graphicx} where the table is too wide:"


def latex_escaped(text: str) -> str:
    """Text for LaTeX. A bracket is escaped too: at the start of a row it would be an option of the row before."""
    return "".join(_ESCAPES.get(character, character) for character in text).replace(r" \%", r"\,\%")


def latex_table(
    columns: str, head: Sequence[str], blocks: Iterable[Iterable[Sequence[str]]], comments: Iterable[str]
) -> str:
    r"""A ``tabular`` to be used with ``\input``, with a rule between blocks of rows; entries are escaped already.

    ``comments`` come on top, each made one line, since only the end of the line ends a comment.
    """
    lines = [f"% {' '.join(comment.split())}" for comment in (_PACKAGES, *comments)]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(head) + r" \\"]
    for rows in blocks:
        lines += [r"\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV under the keys of the first; None is empty, and no text is a formula to a spreadsheet."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in record.items()} for record in records)
    return stream.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
