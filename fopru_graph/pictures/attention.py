"""The attention of a vision encoder as one picture (FoPru Fig. 1): how few tokens hold most of it, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fopru_graph.pictures.backend import import_matplotlib
from fopru_graph.terminal.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_MOST_PICTURES = 3  # their maps are drawn; the curves are means over all pictures
_MARKERS, _DASHES = "os^Dv", ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MASS, _FEW = 0.8, 0.25  # the paper: less than 25 % of the tokens hold over 80 % of the attention


def draw_concentration(data: Mapping[str, Any]) -> Figure:
    """Draw the content of an ``attention.json`` with the current settings of matplotlib.

    Left: for each layer that has maps, the attention held by the top tokens; for every layer, the share of tokens that
    holds 80 % of its attention. Both are means over all pictures. Right: maps of the first pictures. Layers are
    numbered from 0.

    Raises:
        ValueError: ``data`` has no picture.
    """
    import_matplotlib()
    from matplotlib.figure import Figure

    pictures = data["pictures"]
    if not pictures:
        raise ValueError("there is no picture whose attention could be drawn")
    shown = pictures[:_MOST_PICTURES]
    layers = sorted({int(layer) for picture in pictures for layer in picture["maps"]})
    figure = Figure(figsize=(4.8 + 1.9 * len(layers), max(5.6, 1.4 + 2.1 * len(shown))), layout="constrained")
    count = f"{len(pictures)} pictures" if len(pictures) > 1 else "one picture"
    figure.suptitle(
        f"attention received by the visual tokens in the encoder of {data['model']}, {count}",
        fontsize=12,
        fontweight="bold",
        parse_math=False,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(4.8, 1.9 * len(layers)), squeeze=False)[0]
    curves, needed = left.subplots(2, 1, height_ratios=(1.25, 1))
    _draw_curves(curves, data, layers)
    _draw_needed(needed, data)
    for axes in (curves, needed):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.5)
        axes.set_axisbelow(True)
    grid = right.subplots(len(shown), len(layers), squeeze=False)
    for row, picture in zip(grid, shown, strict=True):
        source = str(picture["source"])
        row[0].set_ylabel(source if len(source) <= 22 else f"…{source[-21:]}", parse_math=False)
        for axes, layer in zip(row, layers, strict=True):
            _draw_map(axes, picture, layer, _name(layer, data))
    return figure


def _draw_curves(axes: Axes, data: Mapping[str, Any], layers: Sequence[int]) -> None:
    """Share of the attention held by the top tokens, one line per layer; uniform attention is the diagonal."""
    points = np.linspace(0, 1, 21)
    axes.plot(points, points, color="0.6", linewidth=1, label="even")
    for number, layer in enumerate(layers):
        style: dict[str, Any] = {"color": _LINES[number % len(_LINES)], "linestyle": _DASHES[number % len(_DASHES)]}
        style |= {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 4, "markevery": (number, 4)}
        axes.plot(points, _mean_curve(data, layer), **style, label=_name(layer, data))
    axes.axhline(_MASS, color="0.4", linewidth=0.8, linestyle=":")
    _label_in_percent(axes.xaxis)
    _label_in_percent(axes.yaxis)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the tokens, those with most attention first")
    axes.set_ylabel("share of the attention")
    axes.legend(loc="lower right", frameon=False)


def _draw_needed(axes: Axes, data: Mapping[str, Any]) -> None:
    """The share of tokens that holds 80 % of each layer's attention: mean and range over the pictures."""
    from matplotlib.ticker import MaxNLocator

    shares = np.array([picture["tokens_for_80"] for picture in data["pictures"]], dtype=float)  # None becomes NaN
    known = ~np.isnan(shares).all(0)
    layers, shares = np.flatnonzero(known), shares[:, known]
    axes.fill_between(layers, np.nanmin(shares, 0), np.nanmax(shares, 0), color=_LINES[0], alpha=0.2, linewidth=0)
    axes.plot(layers, np.nanmean(shares, 0), color=_LINES[0], marker="o", markersize=4)
    axes.axhline(_FEW, color="0.4", linewidth=0.8, linestyle=":", label=f"{percent(_FEW)} (paper: deep layers of CLIP)")
    axes.axvline(data["read_layer"], color=_LINES[1], linewidth=1, linestyle="--", label="layer that is read")
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.5, data["layers"] - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_in_percent(axes.yaxis)
    axes.set_xlabel("layer of the encoder")
    axes.set_ylabel(f"tokens that hold {percent(_MASS)}")
    axes.legend(loc="lower left", frameon=False)


def _draw_map(axes: Axes, picture: Mapping[str, Any], layer: int, name: str) -> None:
    """Attention received at every position; each map has its own scale, which ends at the 99th percentile."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if str(layer) not in picture["maps"]:
        axes.set_title(f"{name}\nwindows only", fontsize=9)
        return
    scores = np.asarray(picture["maps"][str(layer)], dtype=float)
    low, high = scores.min(), np.quantile(scores, 0.99)
    axes.imshow(scores, cmap="magma", vmin=low, vmax=high if high > low else scores.max(), interpolation="nearest")
    axes.set_title(f"{name}\n{percent(_MASS)} in {percent(picture['tokens_for_80'][layer])}", fontsize=9)


def _mean_curve(data: Mapping[str, Any], layer: int) -> Any:
    """The mean curve of a layer over the pictures that have one."""
    curves = [picture["curves"][layer] for picture in data["pictures"]]
    return np.mean([curve for curve in curves if curve is not None], axis=0)


def _name(layer: int, data: Mapping[str, Any]) -> str:
    return f"layer {layer} (read)" if layer == data["read_layer"] else f"layer {layer}"


def _label_in_percent(axis: Any) -> None:
    """Label an axis of shares at every 20 %."""
    from matplotlib.ticker import MultipleLocator

    axis.set_major_locator(MultipleLocator(0.2))
    axis.set_major_formatter(lambda share, _: percent(share))
