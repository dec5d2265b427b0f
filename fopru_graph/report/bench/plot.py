"""A bench as one picture: where the time to first token goes, and what pruning gains at every ratio."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, Literal

from fopru_graph.report.bench.table import STAGES, machine_name
from fopru_graph.terminal.console import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

    from fopru_graph.results.bench import BenchResult, Variant

# Paul Tol's "light" scheme for fills and Okabe and Ito's colours for lines; both are told apart by colour-blind eyes.
_FILLS = dict(zip(STAGES[:-1], ("#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#44bb99"), strict=True))
_REST = "#dddddd"
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")
_MARKERS = "os^Dv<>"
_WHOLE_MARKERS = "*PXph"  # of pipelines that drop nothing, which are black
_WHOLE = 0.999  # a pipeline whose smallest share is larger drops nothing
_LOG_BELOW = 0.1  # the smallest share kept from which on a linear axis shows every ratio apart
_LABEL_WIDTH = 0.1  # of a ratio, as a part of the axis
_DODGE = 3.5  # points between two pipelines' markers at the same ratio, so that neither hides the other
# Set here so that a user's own settings of matplotlib change nothing, and the same bench always gives the same bytes.
_STYLE = {"svg.hashsalt": "fopru-graph", "text.parse_math": False, "font.size": 9, "axes.axisbelow": True}


def bench_picture(result: BenchResult, kind: Literal["png", "svg"]) -> bytes:
    """The picture of a bench as a file's content: bars of the stages on the left, gains against ratios on the right."""
    import matplotlib.style

    stream = io.BytesIO()
    with matplotlib.style.context(["default", _STYLE]):
        figure = draw_bench(result)
        metadata = {"Title": f"bench of {result.model}"} | ({"Date": None} if kind == "svg" else {})
        figure.savefig(stream, format=kind, dpi=150, metadata=metadata)
    return stream.getvalue()


def draw_bench(result: BenchResult) -> Figure:
    """The picture of a bench as a figure of matplotlib's, drawn without its global state."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06, h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(13, 2.6 + max(2.4, 0.32 * len(result.variants))), layout=layout)
    title = f"{result.model} on {machine_name(result.machine)}"
    title += " (interrupted)" if result.interrupted else ""
    figure.suptitle(textwrap.fill(title, 110), fontsize=12, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_stages(left, result)
    _draw_gains(right, result)
    for axes, columns in ((left, 6), (right, 4)):
        axes.spines[["top", "right"]].set_visible(False)
        below = _shifted(axes.transAxes, axes, 0, -34)  # under the axis and its label
        if axes.get_legend_handles_labels()[0]:  # else there is nothing to explain, and matplotlib would warn
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns, frameon=False)
    return figure


def _shifted(transform: Transform, axes: Axes, right: float, up: float) -> Transform:
    """The transform, moved by so many points."""
    from matplotlib.transforms import ScaledTranslation

    return transform + ScaledTranslation(right / 72, up / 72, axes.figure.dpi_scale_trans)


def _draw_stages(axes: Axes, result: BenchResult) -> None:
    """One bar a variant, as long as its measured time to first token, made of its stages' medians and a rest."""
    places = range(len(result.variants))
    ends = [0.0] * len(places)
    for stage, colour in _FILLS.items():
        medians = [v.stages[stage].median if stage in v.stages else 0.0 for v in result.variants]
        axes.barh(places, medians, left=ends, color=colour, label=stage)
        ends = [end + median for end, median in zip(ends, medians, strict=True)]
    rests = [max(0.0, v.ttft.median - end) for v, end in zip(result.variants, ends, strict=True)]
    axes.barh(places, rests, left=ends, color=_REST, label="rest")
    for place, variant, end, rest in zip(places, result.variants, ends, rests, strict=True):
        text = f"{milliseconds(variant.ttft.median)} ms"
        axes.annotate(text, (end + rest, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [variant.label for variant in result.variants])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.02)
    axes.grid(axis="x", color="0.9")
    axes.set_xlabel("milliseconds, medians")
    axes.set_title("time to first token, by stage", fontsize=10)


def _draw_gains(axes: Axes, result: BenchResult) -> None:
    """One line a pipeline with measured gains and intervals, and its ideal gains dashed in the same colour."""
    if result.self_gain is not None:
        label = f"{result.reference} against itself"
        axes.axhspan(result.self_gain.low, result.self_gain.high, color="0.88", label=label, zorder=0)
    axes.axhline(1, color="0.5", linewidth=0.8)
    lines = _by_pipeline(result)
    whole = [name for name, points in lines.items() if points[0][0] > _WHOLE]
    pruned = [name for name in lines if name not in whole]
    for names, colours, markers in ((whole, ("black",), _WHOLE_MARKERS), (pruned, _LINES, _MARKERS)):
        for i, name in enumerate(names):
            dodged = _shifted(axes.transData, axes, _DODGE * (i - (len(names) - 1) / 2), 0)
            _draw_pipeline(axes, name, lines[name], colours[i % len(colours)], markers[i % len(markers)], dodged)
    if pruned:
        axes.plot([], [], "--_", color="0.4", linewidth=1, label="ideal")
    _share_axis(axes, sorted({share for points in lines.values() for share, _ in points}))
    _gain_axis(axes, result)
    axes.grid(axis="y", color="0.9")
    axes.set_ylabel(f"TTFT of {result.reference} ÷ TTFT")
    axes.set_title("gain in time to first token, with 95 % intervals", fontsize=10)


def _draw_pipeline(
    axes: Axes, name: str, points: list[tuple[float, Variant]], colour: str, marker: str, dodged: Transform
) -> None:
    """The measured gains of a pipeline; the ideal ones too where tokens are dropped, else they are all 1.

    Lines run through the true ratios, only markers are dodged: shifted lines would cross where the gains do not.
    """
    shares, gains = [share for share, _ in points], [variant.ttft_gain for _, variant in points]
    measured = [gain.measured for gain in gains]
    # A bootstrap interval need not contain the measured ratio, and matplotlib takes no negative lengths.
    below = [max(0.0, gain.measured - gain.low) for gain in gains]
    above = [max(0.0, gain.high - gain.measured) for gain in gains]
    bars: dict[str, Any] = {"linestyle": "none", "capsize": 3, "elinewidth": 1, "zorder": 3}
    axes.errorbar(shares, measured, (below, above), label=name, color=colour, marker=marker, transform=dodged, **bars)
    axes.plot(shares, measured, color=colour, linewidth=1.2)
    if shares[0] <= _WHOLE:
        ideal = [gain.ideal for gain in gains]
        axes.plot(shares, ideal, "_", color=colour, markersize=8, transform=dodged)
        axes.plot(shares, ideal, "--", color=colour, linewidth=0.9)


def _by_pipeline(result: BenchResult) -> dict[str, list[tuple[float, Variant]]]:
    """The variants of every pipeline with the share of visual tokens that they keep, smallest share first."""
    most = max((max(variant.visual_per_layer, default=0) for variant in result.variants), default=0)
    lines: dict[str, list[tuple[float, Variant]]] = {}
    for variant in result.variants:
        last = variant.visual_per_layer[-1] if variant.visual_per_layer else most
        share = variant.ratio if variant.ratio is not None else last / most if most else 1.0
        lines.setdefault(variant.pipeline, []).append((share, variant))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in lines.items()}


def _gain_axis(axes: Axes, result: BenchResult) -> None:
    """Show all that is drawn: matplotlib's own limits do not count what a shifted transform draws."""
    gains = [variant.ttft_gain for variant in result.variants]
    gains += [] if result.self_gain is None else [result.self_gain]
    ends = [1.0, *(end for gain in gains for end in (gain.measured, gain.low, gain.high, gain.ideal))]
    margin = 0.06 * (max(ends) - min(ends)) or 0.1
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _share_axis(axes: Axes, shares: list[float]) -> None:
    """Tick the measured shares themselves, as far as their labels do not meet."""
    if shares and 0 < shares[0] < _LOG_BELOW:
        axes.set_xscale("log")
        axes.set_xlim(shares[0] / 1.3, 1.3)
    else:
        axes.set_xlim(0, 1.08)
    ticks: list[float] = []
    for share in reversed(shares):
        if not ticks or _distance(axes, share, ticks[-1]) > _LABEL_WIDTH:
            ticks.append(share)
    axes.set_xticks(ticks, [percent(share) for share in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("share of the visual tokens that is kept")


def _distance(axes: Axes, a: float, b: float) -> float:
    """How far two shares are apart on the x axis, as a part of its length."""
    ends = [float(axes.transData.transform((share, 1))[0]) for share in (a, b)]
    return abs(ends[0] - ends[1]) / float(axes.bbox.width)
