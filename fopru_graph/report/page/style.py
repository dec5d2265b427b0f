"""The style of the page's figures: one colour, marker and dash for every method, panels, legends, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fopru_graph.report.plots import COLOURS, INK, PALE, PAPER, figure_file, new_figure, plot_settings
from fopru_graph.results.methods import Method, ModelResults, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dv<>pPX"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1)))
_REFERENCES = {
    Role.RANDOM: ((0, (4, 2)), "x"),
    Role.DOWNSAMPLE: ((0, (1, 1.5)), "+"),
    Role.BLIND: ((0, (8, 2, 1, 2)), "1"),
}
WIDTH = 10.0  # inches, of every figure
_SETTINGS = {
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
    """A figure as files, with its caption, and the text that is read out in its place."""

    template: ClassVar[str] = "drawing"
    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in every figure."""

    colour: str
    marker: str
    dashes: Any

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of matplotlib for a line with markers."""
        size = {"linewidth": 1.3, "markersize": 5}
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes} | size

    @property
    def markers(self) -> dict[str, Any]:
        """Arguments of matplotlib for markers without a line."""
        return self.line | {"linestyle": "none"}


def styles_of(study: ModelResults) -> dict[str, Style]:
    """The style of every method by its label; references have the colour of the text."""
    styles = {}
    number = 0
    for method in study.methods:
        if method.role is not Role.METHOD:
            dashes, marker = _REFERENCES[method.role]
            styles[method.label] = Style(INK, marker, dashes)
            continue
        round_of_colours, colour = divmod(number, len(COLOURS))
        dashes = _DASHES[round_of_colours % len(_DASHES)]
        styles[method.label] = Style(COLOURS[colour], _MARKERS[number % len(_MARKERS)], dashes)
        number += 1
    return styles


def page_settings() -> AbstractContextManager[None]:
    """The settings of matplotlib under which the figures of the page must be drawn and written."""
    return plot_settings(_SETTINGS)


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    return new_figure(width, height, h_pad=0.08, w_pad=0.08, hspace=0.06)


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` axes, each ``height`` inches high, below each other; more than three in two columns."""
    columns = 2 if count > 3 else 1
    rows = -(-count // columns)
    figure = figure_of(WIDTH, (height if columns == 1 else 0.85 * height) * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid[:count])


def label_axes(axes: Axes, title: str, y: str, x: str | None = None) -> None:
    """Give a panel its title, its labels and horizontal grid lines; with ``x`` also that label and vertical lines."""
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(y)
    if x is not None:
        axes.set_xlabel(x)
    axes.grid(axis="y" if x is None else "both")


def to_drawing(figure: Figure, name: str, title: str, caption: str, alt: str) -> Drawing:
    """Write a figure as SVG and PNG; call it within `page_settings`."""
    return Drawing(name, title, caption, alt, figure_file(figure, "svg", title), figure_file(figure, "png", title))


def add_legend(figure: Figure) -> None:
    """One legend below all panels; handles that share a label in a panel are drawn on top of each other."""
    entries: dict[str, tuple[Any, ...]] = {}
    for axes in figure.axes:
        in_panel: dict[str, list[Any]] = {}
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            in_panel.setdefault(label, []).append(handle)
        for label, handles in in_panel.items():
            entries.setdefault(
                label, tuple(reversed(handles))
            )  # matplotlib lists lines first; they belong on top of bars
    if entries:
        figure.legend(
            [handles if len(handles) > 1 else handles[0] for handles in entries.values()],  # type: ignore[misc]
            list(entries),
            loc="outside lower center",
            ncols=min(4, len(entries)),
            handlelength=3,
        )


def label_of(method: Method) -> str:
    """The name of a method for legends; references are marked."""
    return f"{method.label} (reference)" if method.role is not Role.METHOD else method.label


def sample_counts(counts: Sequence[int]) -> str:
    """Numbers of samples as text, e.g. ``n = 1534`` or ``n = 200 to 1534``."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"
