"""Text for LaTeX, and tables of the package booktabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ESCAPES = {character: "\\" + character for character in "&%$#_{}"}
_ESCAPES |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
_ESCAPES |= {"–": "--", "−": "$-$", "×": r"$\times$", "→": r"$\to$", "÷": r"$\div$", "▲": r"$\uparrow$"}
_ESCAPES |= {"▼": r"$\downarrow$", "≥": r"$\geq$", "<": r"\textless{}", ">": r"\textgreater{}"}


def escaped(text: str) -> str:
    """Text for LaTeX, also at a row's beginning, where a bracket would be read as an option of the row before."""
    return "".join(_ESCAPES.get(character, character) for character in text).replace(r" \%", r"\,\%")


def tabular(columns: str, head: str, blocks: Iterable[Sequence[str]], comments: Iterable[str]) -> str:
    r"""A ``tabular`` to be used with ``\input``: rows of cells that are escaped already, a rule between blocks.

    ``comments`` come on top, each on one line, since nothing but a line's end ends a comment.
    """
    lines = [f"% {' '.join(comment.split())}" for comment in comments]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head + r" \\"]
    for rows in blocks:
        lines += [r"\midrule", *(row + r" \\" for row in rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
