"""Accuracy against retention (the paper's Figures 5 and 7), and relative accuracy by strategy (its Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fopru_graph.report.page.style import (
    Drawing,
    Style,
    add_legend,
    label_axes,
    label_of,
    panels,
    sample_counts,
    styles_of,
    to_drawing,
)
from fopru_graph.report.plots import INK, PAPER, share_axis, shifted
from fopru_graph.results.methods import Method, ModelResults, Point, Ratio, Role, points
from fopru_graph.terminal.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS: dict[str, Any] = {"linestyle": "none", "elinewidth": 0.9, "capsize": 2, "zorder": 3}
_DODGE = 1.4  # points (1/72 inch) between the error bars of two methods at the same share; markers are not moved


def layers_differ(study: ModelResults) -> bool:
    """Whether a method leaves its layers different numbers of tokens, so that the two ways to count differ."""
    return any(point.average != point.share for _, _, _, point in points(study) if point.average is not None)


def accuracy_figure(study: ModelResults, name: str, *, by_average: bool = False) -> Drawing:
    """One panel per task: a line per method with 95 % intervals, the unpruned model, and the references.

    The share is that of the last layer, or ``by_average`` that of all layers together.
    """
    styles = styles_of(study)
    figure, grid = panels(len(study.tasks), 3.9)
    for task, axes in zip(study.tasks, grid, strict=True):
        _draw_task(axes, study, task, styles, by_average)
    counts = [point.cell.summary.n for method, _, _, point in points(study) if method in study.compared]
    sees = (
        "a layer of the language model sees on average" if by_average else "the language model's last layer still sees"
    )
    caption = (
        f"{study.model}; {sample_counts([n for n in counts if n])} a cell. Points stand at the measured share of the "
        f"visual tokens that {sees}; their 95 % intervals are shifted a little where they would hide each other. "
        "What ran as written is one point, with a bar from the 10th to the 90th percentile of "
        "its share. The blind line is the same model without any visual token, the random line drops tokens by lot: a "
        "method is worth something only above both."
    )
    title = f"Accuracy against {'the layer average' if by_average else 'retention'}"
    alt = f"{title} on {', '.join(study.tasks)} for {len(study.compared)} methods"
    add_legend(figure)
    return to_drawing(figure, name, title, caption, alt)


def _draw_task(axes: Axes, study: ModelResults, task: str, styles: dict[str, Style], by_average: bool) -> None:
    shares: list[float] = []
    if unpruned := study.unpruned.get(task):
        _draw_level(axes, unpruned, "unpruned", "-")
    for number, method in enumerate(study.compared):
        by_ratio = method.points.get(task, {})
        style = styles[method.label]
        if method.role is Role.BLIND:
            for point in by_ratio.values():
                _draw_level(axes, point, label_of(method), style.dashes)
        else:
            shift = _DODGE * (number - (len(study.compared) - 1) / 2)
            shares += _draw_method(axes, label_of(method), _marks(by_ratio, by_average), style, shift)
    share_axis(axes, shares, f"measured share of the visual tokens{', layer average' * by_average}", study.ratios)
    label_axes(axes, task, "accuracy, %")


def _draw_level(axes: Axes, point: Point, label: str, dashes: Any) -> None:
    """A horizontal line with its interval as a band."""
    if point.accuracy is None:
        return
    axes.axhline(100 * point.accuracy, color=INK, linestyle=dashes, linewidth=1, label=label, zorder=1)
    if point.ci:
        axes.axhspan(100 * point.ci[0], 100 * point.ci[1], color=INK, alpha=0.08, linewidth=0, zorder=0)


class _Mark(NamedTuple):
    """A point as it is drawn: share kept with its percentiles, accuracy in percent with its interval."""

    x: float
    left: float
    right: float
    y: float
    low: float
    high: float
    as_written: bool


def _marks(by_ratio: Mapping[Ratio, Point], by_average: bool) -> list[_Mark]:
    """The points of a method that can be drawn, by share; a share of 0 has no position on a logarithmic axis.

    Percentiles are known of the last layer's share only.
    """
    marks = []
    for ratio, point in by_ratio.items():
        share = point.average if by_average else point.share
        if point.accuracy is not None and share:
            y = 100 * point.accuracy
            low, high = (100 * end for end in point.ci) if point.ci else (y, y)
            left, right = (share, share) if by_average else (point.low or share, point.high or share)
            marks.append(_Mark(share, left, right, y, min(low, y), max(high, y), ratio is None))
    return sorted(marks)


def _draw_method(axes: Axes, label: str, marks: list[_Mark], style: Style, shift: float) -> list[float]:
    """Draw a line through the ratios that were set and a point for what ran as written; returns the shares drawn."""
    if not marks:
        return []
    dodged = shifted(axes.transData, axes, right=shift)
    xs, ys = [mark.x for mark in marks], [mark.y for mark in marks]
    ends = [[mark.y - mark.low for mark in marks], [mark.high - mark.y for mark in marks]]
    axes.errorbar(xs, ys, ends, color=style.colour, transform=dodged, **_BARS)
    line = [mark for mark in marks if not mark.as_written]
    path = [mark.x for mark in line], [mark.y for mark in line]
    axes.plot(*path, color=style.colour, linestyle=style.dashes, linewidth=1.3, zorder=2)
    for mark in marks:
        if mark.as_written:
            axes.plot([mark.left, mark.right], [mark.y] * 2, color=style.colour, linewidth=2.5, alpha=0.45)
    axes.plot(xs, ys, **style.markers, zorder=4)
    axes.plot([], [], label=label, **style.line if line else style.markers)
    # matplotlib ignores what is drawn with a transform other than transData when it sets the limits.
    axes.update_datalim([(mark.x, end) for mark in marks for end in (mark.low, mark.high)])
    axes.autoscale_view()
    return xs


def relative_figure(study: ModelResults, name: str) -> Drawing | None:
    """One panel per ratio: accuracy ÷ unpruned accuracy as bars by task, and their mean; None without such a pair."""
    ratios = [
        ratio
        for ratio in study.main_ratios
        if any(relative(study, method, task, ratio) for method in study.compared for task in study.tasks)
    ]
    if not ratios:
        return None
    styles = styles_of(study)
    figure, grid = panels(len(ratios), 2.3)
    for ratio, axes in zip(ratios, grid, strict=True):
        _draw_ratio(axes, study, ratio, styles)
    caption = (
        f"{study.model}. Relative accuracy is the accuracy after pruning divided by the accuracy without; 100 % is the "
        "unpruned model. The mean is over tasks and drawn only where a method has them all."
    )
    title = "Relative accuracy by strategy"
    alt = f"{title} at {', '.join(percent(ratio) for ratio in ratios)} of the visual tokens on {', '.join(study.tasks)}"
    add_legend(figure)
    return to_drawing(figure, name, title, caption, alt)


def relative(study: ModelResults, method: Method, task: str, ratio: float | None) -> float | None:
    """Accuracy ÷ unpruned accuracy of the same task; None where either is unknown, or the latter is 0."""
    point, unpruned = method.at(task, ratio), study.unpruned.get(task)
    if point is None or unpruned is None or point.accuracy is None or not unpruned.accuracy:
        return None
    return point.accuracy / unpruned.accuracy


def _draw_ratio(axes: Axes, study: ModelResults, ratio: float, styles: dict[str, Style]) -> None:
    groups = [*study.tasks, "mean"] if len(study.tasks) > 1 else list(study.tasks)
    methods = [method for method in study.compared if any(method.at(task, ratio) for task in study.tasks)]
    width = 0.84 / len(methods)
    for number, method in enumerate(methods):
        heights = [relative(study, method, task, ratio) for task in study.tasks]
        if len(groups) > len(heights):
            known = [height for height in heights if height is not None]
            heights.append(sum(known) / len(known) if len(known) == len(study.tasks) else None)
        style = styles[method.label]
        xs = [group + width * (number - (len(methods) - 1) / 2) for group in range(len(groups))]
        tops = [100 * height if height is not None else 0 for height in heights]
        axes.bar(xs, tops, 0.92 * width, label=label_of(method), **_fill(method.role, style))
        # Every bar carries the marker of its method, so that colour is not all that tells bars apart.
        shown = [(x, top) for x, top in zip(xs, tops, strict=True) if top]
        marker = style.markers | {"color": INK, "markersize": 3.5}
        axes.plot(*zip(*shown, strict=True), **marker, label=label_of(method), clip_on=False)
    axes.axhline(100, color=INK, linewidth=0.9)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    label_axes(axes, f"{percent(ratio)} of the visual tokens", "relative accuracy, %")


def _fill(role: Role, style: Style) -> dict[str, Any]:
    """The inside of a bar: hatched in ink for references, in white for methods that share their colour with others."""
    if role is not Role.METHOD:
        hatch = {Role.RANDOM: "///", Role.DOWNSAMPLE: "..."}.get(role, "")
        return {"color": "none", "edgecolor": INK, "linewidth": 0.6, "hatch": hatch}
    if style.dashes == "-":
        return {"color": style.colour}
    return {"facecolor": style.colour, "edgecolor": PAPER, "linewidth": 0, "hatch": "xx"}
