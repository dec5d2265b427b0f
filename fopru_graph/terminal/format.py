"""How numbers are written for people: in tables, plots, pages and on the terminal. Imports nothing heavy."""

from __future__ import annotations


def milliseconds(value: float | None, digits: int = 1) -> str:
    """Milliseconds with ``digits`` decimals, without their unit; ``–`` for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share as a percentage of three significant digits, e.g. ``2.78 %``; ``–`` for None."""
    return "–" if share is None else f"{100 * share:.3g} %"


def ratio_text(ratio: float | None) -> str:
    """A retention ratio as a percentage; ``as written`` for None, a pipeline whose ratio was not set from outside."""
    return "as written" if ratio is None else percent(ratio)


def accuracy_text(share: float | None) -> str:
    """A share in percent with two decimals and without the sign, as papers print accuracies; ``–`` for None."""
    return "–" if share is None else f"{100 * share:.2f}"


def signed(share: float) -> str:
    """A difference of shares in percentage points with one decimal and its sign, e.g. ``−12.3``."""
    text = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def p_text(p: float) -> str:
    """A p-value with three decimals, e.g. ``0.042``, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(count: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least one, e.g. ``648.0 KiB``; ``–`` for None."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def counted(count: int, noun: str) -> str:
    """A number with its noun, e.g. ``1 error``, ``2 errors``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
