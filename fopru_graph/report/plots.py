"""What all plots share: colours, settings, axes of retention ratios, and how figures become files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from fopru_graph.pictures.backend import import_matplotlib
from fopru_graph.terminal.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

INK, PALE, PAPER = "#1f2328", "#d9dce1", "#ffffff"
# Okabe and Ito's colours, which colour-blind readers can tell apart, and a seventh.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")
# Fixed here, so that a user's settings of matplotlib change nothing and the same figure always has the same bytes.
_SETTINGS = {"svg.hashsalt": "fopru-graph", "text.parse_math": False, "font.size": 9, "axes.axisbelow": True}
_LINE = 0.14  # inches that a line of text needs
_LOG_BELOW = 0.1  # with a smaller share, ratios would lie too close together on a linear axis


def plot_settings(more: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
    """The settings of matplotlib under which figures must be both drawn and written, ``more`` among them."""
    import_matplotlib()
    import matplotlib.style

    return matplotlib.style.context(["default", _SETTINGS | dict(more or {})])


def new_figure(width: float, height: float, **spacing: Any) -> Figure:
    """An empty figure, sizes in inches, without matplotlib's global state; its parts do not overlap."""
    import_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**spacing))


def figure_file(figure: Figure, kind: Literal["png", "svg"], title: str) -> bytes:
    """A figure as the content of a file; call it within `plot_settings`."""
    stream = io.BytesIO()
    metadata = {"Title": title} | ({"Date": None} if kind == "svg" else {})
    figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
    return stream.getvalue()


def shifted(transform: Transform, axes: Axes, right: float = 0, up: float = 0) -> Transform:
    """A transform that moves what it draws by so many points (1/72 inch)."""
    from matplotlib.transforms import ScaledTranslation

    return transform + ScaledTranslation(right / 72, up / 72, axes.figure.dpi_scale_trans)


def share_axis(
    axes: Axes, shares: Iterable[float], label: str, ratios: Sequence[float] = (), spacing: float = 0.55
) -> None:
    """Make x an axis of shares that ends at 100 %, logarithmic where some shares are small.

    Ticks stand at ``ratios``, or at the shares themselves. Labels that would be closer than ``spacing`` inches are
    written upwards; those that have no room even so are left out.
    """
    all_shares = sorted({*shares, 1.0})
    if 0 < all_shares[0] < _LOG_BELOW:
        axes.set_xscale("log")
        axes.set_xlim(all_shares[0] / 1.35, 1.3)
    else:
        axes.set_xlim(0, 1.06)
    every = sorted({*(ratios or all_shares), 1.0}, reverse=True)
    ticks, upright = _apart(axes, every, spacing), False
    if len(ticks) < len(every):
        ticks, upright = _apart(axes, every, _LINE), True
    axes.set_xticks(ticks, [percent(share) for share in ticks], rotation=90 if upright else 0)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def _apart(axes: Axes, shares: Sequence[float], inches: float) -> list[float]:
    """The shares, largest first, without those that are too close to the one before."""
    kept: list[float] = []
    for share in shares:
        if not kept or _inches_between(axes, share, kept[-1]) > inches:
            kept.append(share)
    return kept


def _inches_between(axes: Axes, a: float, b: float) -> float:
    """The distance of two values on the x axis, before the layout moves the parts of the figure."""
    ends = [float(axes.transData.transform((value, 1))[0]) for value in (a, b)]
    return abs(ends[0] - ends[1]) / float(axes.figure.dpi)
