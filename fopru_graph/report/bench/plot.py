"""A bench as one picture: the stages of the time to first token, and the gain of pruning at every ratio."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Literal

from fopru_graph.report.bench.table import machine_name
from fopru_graph.report.plots import COLOURS, figure_file, new_figure, plot_settings, share_axis, shifted
from fopru_graph.results.bench import STAGES, BenchResult, Variant
from fopru_graph.terminal.format import milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

# Paul Tol's "light" scheme, whose colours colour-blind readers can tell apart.
_FILLS = dict(zip(STAGES[:-1], ("#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#44bb99"), strict=True))
_REST = "#dddddd"
_WARNING = "#b00020"
_MARKERS = "os^Dv<>"
_UNPRUNED_MARKERS = "*PXph"  # of pipelines that drop nothing, which are black
_UNPRUNED = 0.999  # a pipeline whose smallest share is larger drops nothing
_DODGE = 3.5  # points between the intervals of two pipelines at the same ratio, so that neither hides the other


def bench_picture(result: BenchResult, kind: Literal["png", "svg"]) -> bytes:
    """The picture of a bench as a file's content: bars of the stages on the left, gains against ratios on the right."""
    with plot_settings():
        return figure_file(draw_bench(result), kind, f"bench of {result.model}")


def draw_bench(result: BenchResult) -> Figure:
    """The picture of a bench as a figure of matplotlib."""
    figure = new_figure(13, 2.6 + max(2.4, 0.32 * len(result.variants)), wspace=0.06, h_pad=0.1, w_pad=0.1)
    title = f"{result.model} on {machine_name(result.machine)}"
    title += " (interrupted)" if result.interrupted else ""
    figure.suptitle(textwrap.fill(title, 110), fontsize=12, fontweight="bold")
    if result.warnings:
        figure.supxlabel(textwrap.fill("\n".join(result.warnings), 150), fontsize=9, color=_WARNING)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_stages(left, result)
    _draw_gains(right, result)
    for axes, columns in ((left, 6), (right, 4)):
        axes.spines[["top", "right"]].set_visible(False)
        upright = any(label.get_rotation() for label in axes.get_xticklabels())
        below = shifted(axes.transAxes, axes, up=-66 if upright else -34)  # under the axis and its label
        if axes.get_legend_handles_labels()[0]:  # matplotlib warns about an empty legend
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns, frameon=False)
    return figure


def _draw_stages(axes: Axes, result: BenchResult) -> None:
    """One bar per variant, as long as its time to first token: the medians of its stages, and the rest."""
    heights = range(len(result.variants))
    ends = [0.0] * len(heights)
    for stage, colour in _FILLS.items():
        medians = [v.stages[stage].median if stage in v.stages else 0.0 for v in result.variants]
        axes.barh(heights, medians, left=ends, color=colour, label=stage)
        ends = [end + median for end, median in zip(ends, medians, strict=True)]
    rests = [max(0.0, v.ttft.median - end) for v, end in zip(result.variants, ends, strict=True)]
    axes.barh(heights, rests, left=ends, color=_REST, label="rest")
    for height, variant, end, rest in zip(heights, result.variants, ends, rests, strict=True):
        text = f"{milliseconds(variant.ttft.median)} ms"
        axes.annotate(text, (end + rest, height), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(heights, [variant.label for variant in result.variants])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.02)
    axes.grid(axis="x", color="0.9")
    axes.set_xlabel("milliseconds, medians")
    axes.set_title("time to first token, by stage", fontsize=10)


def _draw_gains(axes: Axes, result: BenchResult) -> None:
    """One line per pipeline with measured gains and intervals, and its ideal gains dashed in the same colour."""
    if result.self_gain is not None:
        label = f"{result.reference} against itself"
        axes.axhspan(result.self_gain.low, result.self_gain.high, color="0.88", label=label, zorder=0)
    axes.axhline(1, color="0.5", linewidth=0.8)
    lines = _by_pipeline(result)
    unpruned = [name for name, points in lines.items() if points[0][0] > _UNPRUNED]
    pruned = [name for name in lines if name not in unpruned]
    for names, colours, markers in ((unpruned, ("black",), _UNPRUNED_MARKERS), (pruned, COLOURS, _MARKERS)):
        for i, name in enumerate(names):
            dodged = shifted(axes.transData, axes, right=_DODGE * (i - (len(names) - 1) / 2))
            _draw_pipeline(axes, name, lines[name], colours[i % len(colours)], markers[i % len(markers)], dodged)
    if pruned:
        axes.plot([], [], "--_", color="0.4", linewidth=1, label="ideal")
    shares = [share for points in lines.values() for share, _ in points]
    share_axis(axes, shares, "share of the visual tokens that is kept", spacing=0.4)
    _gain_axis(axes, result)
    axes.grid(axis="y", color="0.9")
    axes.set_ylabel(f"TTFT of {result.reference} ÷ TTFT")
    axes.set_title("gain in time to first token, with 95 % intervals", fontsize=10)


def _draw_pipeline(
    axes: Axes, name: str, points: list[tuple[float, Variant]], colour: str, marker: str, dodged: Transform
) -> None:
    """Draw the measured gains of a pipeline, and its ideal gains unless it drops nothing: then they are all 1.

    Markers and lines stand at the true ratios; only the intervals are shifted, since they would hide each other.
    """
    shares, gains = [share for share, _ in points], [variant.ttft_gain for _, variant in points]
    measured = [gain.measured for gain in gains]
    # A bootstrap interval need not contain the measured ratio, and matplotlib accepts no negative lengths.
    below = [max(0.0, gain.measured - gain.low) for gain in gains]
    above = [max(0.0, gain.high - gain.measured) for gain in gains]
    bars: dict[str, Any] = {"linestyle": "none", "capsize": 3, "elinewidth": 1, "zorder": 3}
    axes.errorbar(shares, measured, (below, above), color=colour, transform=dodged, **bars)
    axes.plot(shares, measured, color=colour, linewidth=1.2, marker=marker, label=name, zorder=4, clip_on=False)
    if shares[0] <= _UNPRUNED:
        ideal = [gain.ideal for gain in gains]
        axes.plot(shares, ideal, "_", color=colour, markersize=8)
        axes.plot(shares, ideal, "--", color=colour, linewidth=0.9)


def _by_pipeline(result: BenchResult) -> dict[str, list[tuple[float, Variant]]]:
    """The variants of every pipeline, smallest share first; each with its ratio, or its measured share without one."""
    most = max((max(variant.visual_per_layer, default=0) for variant in result.variants), default=0)
    lines: dict[str, list[tuple[float, Variant]]] = {}
    for variant in result.variants:
        last = variant.visual_per_layer[-1] if variant.visual_per_layer else most
        share = variant.ratio if variant.ratio is not None else last / most if most else 1.0
        lines.setdefault(variant.pipeline, []).append((share, variant))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in lines.items()}


def _gain_axis(axes: Axes, result: BenchResult) -> None:
    """Set limits that show everything: those of matplotlib ignore what is drawn with a shifted transform."""
    gains = [variant.ttft_gain for variant in result.variants]
    gains += [] if result.self_gain is None else [result.self_gain]
    ends = [1.0, *(end for gain in gains for end in (gain.measured, gain.low, gain.high, gain.ideal))]
    margin = 0.06 * (max(ends) - min(ends)) or 0.1
    axes.set_ylim(min(ends) - margin, max(ends) + margin)
