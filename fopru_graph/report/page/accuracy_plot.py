"""Accuracy against what was kept (the paper's Figures 5 and 7), and relative accuracy by strategy (its Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fopru_graph.report.page.style import (
    INK,
    PAPER,
    Drawing,
    Look,
    drawn,
    label_of,
    legend,
    looks_of,
    panels,
    said,
    share_axis,
)
from fopru_graph.results.methods import Method, ModelResults, Point, Ratio, Role
from fopru_graph.terminal.console import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS: dict[str, Any] = {"linestyle": "none", "elinewidth": 0.9, "capsize": 2, "zorder": 3}
_DODGE = 1.4  # points between the error bars of two methods at the same share


def accuracy_figure(study: ModelResults, name: str) -> Drawing:
    """One panel a task: a line a method with 95 % intervals, the unpruned model, and what needs no method at all."""
    looks = looks_of(study)
    figure, grid = panels(len(study.tasks), 3.9)
    for task, axes in zip(study.tasks, grid, strict=True):
        _draw_task(axes, study, task, looks)
    legend(figure)
    counts = [
        point.cell.summary.n for method in study.compared for own in method.points.values() for point in own.values()
    ]
    caption = (
        f"{study.model}; {said([n for n in counts if n])} a cell. Points stand at the measured share of the visual "
        "tokens that the language model's last layer still sees, shifted a little where their 95 % intervals would "
        "hide each other. What ran as written is one point, with a bar from the 10th to the 90th percentile of its "
        "share. The blind line is the same model without any visual token, the random line drops tokens by lot: a "
        "method is worth something only above both."
    )
    title = "Accuracy against retention"
    return drawn(figure, name, title, caption, f"{title} on {', '.join(study.tasks)} for {len(study.compared)} methods")


def _draw_task(axes: Axes, study: ModelResults, task: str, looks: dict[str, Look]) -> None:
    shares: list[float] = []
    if whole := study.unpruned.get(task):
        _level(axes, whole, "unpruned", "-")
    for place, method in enumerate(study.compared):
        own = method.points.get(task, {})
        if method.role is Role.BLIND:
            for point in own.values():
                _level(axes, point, label_of(method), looks[method.label].dashes)
            continue
        shift = _DODGE * (place - (len(study.compared) - 1) / 2)
        shares += _draw_method(axes, label_of(method), own, looks[method.label], shift)
    share_axis(axes, shares, "measured share of the visual tokens", study.ratios)
    axes.set_ylabel("accuracy, %")
    axes.set_title(task, fontsize=10)
    axes.grid(axis="y")


def _level(axes: Axes, point: Point, label: str, dashes: Any) -> None:
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


def _marks(own: Mapping[Ratio, Point]) -> list[_Mark]:
    """What can be drawn of a method, by share; a share of nothing has no place on a logarithmic axis."""
    marks = []
    for ratio, point in own.items():
        if point.accuracy is not None and point.share:
            y = 100 * point.accuracy
            low, high = (100 * end for end in point.ci) if point.ci else (y, y)
            left, right = point.low or point.share, point.high or point.share
            marks.append(_Mark(point.share, left, right, y, min(low, y), max(high, y), ratio is None))
    return sorted(marks)


def _draw_method(axes: Axes, label: str, own: Mapping[Ratio, Point], look: Look, shift: float) -> list[float]:
    """A line through the ratios that were set, and a point for what was run as written; returns the shares drawn."""
    from matplotlib.transforms import ScaledTranslation

    marks = _marks(own)
    if not marks:
        return []
    dodged = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    xs, ys = [mark.x for mark in marks], [mark.y for mark in marks]
    ends = [[mark.y - mark.low for mark in marks], [mark.high - mark.y for mark in marks]]
    axes.errorbar(xs, ys, ends, color=look.colour, transform=dodged, **_BARS)
    line = [mark for mark in marks if not mark.as_written]
    path = [mark.x for mark in line], [mark.y for mark in line]
    axes.plot(*path, color=look.colour, linestyle=look.dashes, linewidth=1.3, zorder=2)
    for mark in marks:
        if mark.as_written:
            axes.plot([mark.left, mark.right], [mark.y] * 2, color=look.colour, linewidth=2.5, alpha=0.45)
    unlined = look.line | {"linestyle": "none"}
    axes.plot(xs, ys, **unlined, transform=dodged, zorder=4)
    axes.plot([], [], label=label, **look.line if line else unlined)
    # What is drawn with a transform of its own does not count for the limits.
    axes.update_datalim([(mark.x, end) for mark in marks for end in (mark.low, mark.high)])
    axes.autoscale_view()
    return xs


def relative_figure(study: ModelResults, name: str) -> Drawing | None:
    """One panel a ratio: bars of accuracy ÷ unpruned accuracy, by task and on average; None if nothing is unpruned."""
    ratios = [
        ratio
        for ratio in study.main_ratios
        if any(relative(study, m, t, ratio) for m in study.compared for t in study.tasks)
    ]
    if not ratios:
        return None
    looks = looks_of(study)
    figure, grid = panels(len(ratios), 2.3)
    for ratio, axes in zip(ratios, grid, strict=True):
        _draw_ratio(axes, study, ratio, looks)
    legend(figure)
    caption = (
        f"{study.model}. Relative accuracy is the accuracy after pruning divided by the accuracy without; 100 % is the "
        "unpruned model. The mean is over tasks and drawn only where a method has them all."
    )
    title = "Relative accuracy by strategy"
    alt = f"{title} at {', '.join(percent(ratio) for ratio in ratios)} of the visual tokens on {', '.join(study.tasks)}"
    return drawn(figure, name, title, caption, alt)


def relative(study: ModelResults, method: Method, task: str, ratio: float | None) -> float | None:
    """Accuracy ÷ unpruned accuracy of the same task."""
    point, whole = method.at(task, ratio), study.unpruned.get(task)
    if point is None or whole is None or point.accuracy is None or not whole.accuracy:
        return None
    return point.accuracy / whole.accuracy


def _draw_ratio(axes: Axes, study: ModelResults, ratio: float, looks: dict[str, Look]) -> None:
    places = [*study.tasks, "mean"] if len(study.tasks) > 1 else list(study.tasks)
    methods = [method for method in study.compared if any(method.at(task, ratio) for task in study.tasks)]
    width = 0.84 / len(methods)
    for number, method in enumerate(methods):
        heights = [relative(study, method, task, ratio) for task in study.tasks]
        if len(places) > len(heights):
            known = [height for height in heights if height is not None]
            heights.append(sum(known) / len(known) if len(known) == len(study.tasks) else None)
        look = looks[method.label]
        xs = [place + width * (number - (len(methods) - 1) / 2) for place in range(len(places))]
        tops = [100 * height if height is not None else 0 for height in heights]
        fill = _fill(method.role, look)
        axes.bar(xs, tops, 0.92 * width, label=label_of(method), **fill)
        # Colours alone would tell bars apart by nothing else: each carries its method's marker.
        shown = [(x, top) for x, top in zip(xs, tops, strict=True) if top]
        axes.plot(
            *zip(*shown, strict=True),
            **look.line | {"linestyle": "none", "color": INK, "markersize": 3.5},
            label=label_of(method),
            clip_on=False,
        )
    axes.axhline(100, color=INK, linewidth=0.9)
    axes.set_xticks(range(len(places)), places)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("relative accuracy, %")
    axes.set_title(f"{percent(ratio)} of the visual tokens", fontsize=10)
    axes.grid(axis="y")


def _fill(role: Role, look: Look) -> dict[str, Any]:
    """The inside of a bar: references are hatched in ink, methods whose colour another one has too in white."""
    if role is not Role.METHOD:
        hatch = {Role.RANDOM: "///", Role.DOWNSAMPLE: "..."}.get(role, "")
        return {"color": "none", "edgecolor": INK, "linewidth": 0.6, "hatch": hatch}
    if look.dashes == "-":
        return {"color": look.colour}
    return {"facecolor": look.colour, "edgecolor": PAPER, "linewidth": 0, "hatch": "xx"}
