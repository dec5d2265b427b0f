"""How figures look: one colour, marker and dash for every method, axes of shares, and the files they become."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.results.methods import Method, ModelResults, Role
from fopru_graph.terminal.console import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE, PAPER = "#1f2328", "#d9dce1", "#ffffff"
# Okabe and Ito's colours, told apart by colour-blind eyes, as on light and on dark paper.
COLOURS = {
    "#0072b2": "#4fb0e8",
    "#d55e00": "#f08a3c",
    "#009e73": "#2fc796",
    "#cc79a7": "#e09cc3",
    "#e69f00": "#f0b429",
    "#56b4e9": "#8fd0f5",
    "#7f3c8d": "#c08bd0",
}
DARK = {INK: "#e6e8eb", PALE: "#3d444d", PAPER: "#16191d"} | COLOURS
_MARKERS = "os^Dv<>pPX"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1)))
_REFERENCES = {
    Role.RANDOM: ((0, (4, 2)), "x"),
    Role.DOWNSAMPLE: ((0, (1, 1.5)), "+"),
    Role.BLIND: ((0, (8, 2, 1, 2)), "1"),
}
WIDTH = 10.0  # inches, of every figure
_LOG_BELOW = 0.1  # the smallest share from which on a linear axis shows every ratio apart
_LABEL_WIDTH = 0.55  # inches of a ratio and the gap beside it
# Set here so that a user's own settings of matplotlib change nothing, and the same figure always gives the same bytes.
_STYLE = {
    "svg.hashsalt": "fopru-graph",
    "text.parse_math": False,
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "grid.color": PALE,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Drawing:
    """A figure as files, with what is said below it and what is read out instead of it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure alike."""

    colour: str
    marker: str
    dashes: Any

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line of matplotlib's, markers included."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dashes,
            "linewidth": 1.3,
            "markersize": 5,
        }


def looks_of(study: ModelResults) -> dict[str, Look]:
    """The look of every method by its label; references are of the ink's colour."""
    looks, colours = {}, list(COLOURS)
    place = 0
    for method in study.methods:
        if method.role is not Role.METHOD:
            dashes, marker = _REFERENCES[method.role]
            looks[method.label] = Look(INK, marker, dashes)
            continue
        marker = _MARKERS[place % len(_MARKERS)]
        looks[method.label] = Look(colours[place % len(colours)], marker, _DASHES[place // len(colours) % len(_DASHES)])
        place += 1
    return looks


def style() -> AbstractContextManager[None]:
    """The settings that figures are drawn and written under."""
    import matplotlib.style

    return matplotlib.style.context(["default", _STYLE])


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of so many inches, without matplotlib's global state; its parts keep clear of each other."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.06))


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many axes, each of a height in inches, one below the other; more than three in two columns."""
    columns = 2 if count > 3 else 1
    rows = -(-count // columns)
    figure = figure_of(WIDTH, (height if columns == 1 else 0.85 * height) * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid[:count])


def legend(figure: Figure, columns: int = 4) -> None:
    """One legend below all panels; what has the same label is drawn over each other there, once."""
    known: dict[str, tuple[Any, ...]] = {}
    for axes in figure.axes:
        seen: dict[str, list[Any]] = {}
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, []).append(handle)
        for label, handles in seen.items():
            known.setdefault(label, tuple(reversed(handles)))  # lines come first, and belong on top of bars
    if known:
        figure.legend(
            [handles if len(handles) > 1 else handles[0] for handles in known.values()],  # type: ignore[misc]
            list(known),
            loc="outside lower center",
            ncols=min(columns, len(known)),
            handlelength=3,
        )


def drawn(figure: Figure, name: str, title: str, caption: str, alt: str) -> Drawing:
    """Write a figure as SVG and PNG; call within `style`."""
    files = {}
    for kind in ("svg", "png"):
        stream = io.BytesIO()
        metadata = {"Title": title} | ({"Date": None} if kind == "svg" else {})
        figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
        files[kind] = stream.getvalue()
    return Drawing(name, title, caption, alt, files["svg"], files["png"])


def inline_svg(svg: bytes, prefix: str, alt: str) -> str:
    """An SVG for the inside of a page: names of its own, no head or comment, and colours that follow the page's.

    ``alt`` must be escaped for an attribute.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?.*?\?>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    for colour in DARK:
        text = text.replace(f": {colour}", f": var(--{name_of(colour)})")
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub(r"^<svg ", f'<svg role="img" aria-label="{alt}" ', text, count=1)


def name_of(colour: str) -> str:
    """The page's name for a colour."""
    return f"c{colour.removeprefix('#')}"


def share_axis(axes: Axes, shares: Iterable[float], label: str, ratios: Sequence[float] = ()) -> None:
    """An x axis of shares, logarithmic where some are small, with ticks at the ratios as far as labels do not meet.

    Without ``ratios`` the ticks are at the shares themselves.
    """
    found = sorted({*shares, 1.0})
    if found[0] < _LOG_BELOW:
        axes.set_xscale("log")
        axes.set_xlim(found[0] / 1.35, 1.3)
    else:
        axes.set_xlim(0, 1.06)
    ticks: list[float] = []
    for share in sorted({*(ratios or found), 1.0}, reverse=True):
        if not ticks or _distance(axes, share, ticks[-1]) > _LABEL_WIDTH:
            ticks.append(share)
    axes.set_xticks(ticks, [percent(share) for share in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def _distance(axes: Axes, a: float, b: float) -> float:
    """How far two values are apart on the x axis, in inches, before the figure's parts are moved apart."""
    ends = [float(axes.transData.transform((value, 1))[0]) for value in (a, b)]
    return abs(ends[0] - ends[1]) / float(axes.figure.dpi)


def label_of(method: Method) -> str:
    """A method's name for legends; those that the others are held against say what they are."""
    return f"{method.label} (reference)" if method.role is not Role.METHOD else method.label


def said(n: Sequence[int]) -> str:
    """Numbers of samples as text, e.g. ``n = 1534`` or ``n = 200 to 1534``."""
    low, high = min(n, default=0), max(n, default=0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"
