"""Accuracy against the measured time to first token, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fopru_graph.report.bench.table import machine_name
from fopru_graph.report.page.style import (
    Drawing,
    Style,
    add_legend,
    label_axes,
    label_of,
    panels,
    styles_of,
    to_drawing,
)
from fopru_graph.report.plots import INK
from fopru_graph.results.bench import Bench
from fopru_graph.results.methods import ModelResults
from fopru_graph.terminal.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_PALE = 0.35  # opacity of times that were not measured like the others


class Timed(NamedTuple):
    """A method at a ratio, with its time to first token and its accuracy.

    ``comparable``: its time was measured like those of the others, not taken from a cell where they have a bench.
    """

    label: str
    ratio: float | None
    ms: float
    accuracy: float
    comparable: bool = True


def ttft_figure(study: ModelResults, bench: Bench | None, name: str) -> Drawing | None:
    """One panel per task: accuracy against time to first token; None where fewer than two times are known."""
    bench = bench if bench is not None and bench.model == study.cells[0].identity.model else None
    by_task = {task: timed_points for task in study.tasks if len(timed_points := timed(study, task, bench)) > 1}
    if not by_task:
        return None
    styles = styles_of(study)
    figure, grid = panels(len(by_task), 3.9)
    for (task, timed_points), axes in zip(by_task.items(), grid, strict=True):
        _draw_task(axes, task, timed_points, study, styles)
    if bench is not None:
        source = (
            f"Times are medians of {bench.rounds} interleaved rounds of bench.json ({machine_name(bench.machine)})."
        )
        if not all(point.comparable for points in by_task.values() for point in points):
            source += (
                " Pale: what bench.json lacks, at the median of its own cell, which may have run beside others; "
                "no part of the front."
            )
    else:
        source = (
            "Times are the medians of the cells themselves, which may have run beside each other, so they show an "
            "order and no more; fopru-graph bench with --out set to this folder measures them properly."
        )
    caption = f"{study.model}. {source} The line joins the points that no other beats in both time and accuracy."
    title = "Accuracy against time to first token"
    add_legend(figure)
    return to_drawing(figure, name, title, caption, f"{title} on {', '.join(by_task)}, Pareto front marked")


def timed(study: ModelResults, task: str, bench: Bench | None) -> list[Timed]:
    """The points of a task whose time is known: from the bench if there is one, from the cells what it lacks."""
    known = {(variant.pipeline, variant.ratio): variant.ttft_ms.median for variant in bench.variants} if bench else None
    every = [
        (method.label, method.pipeline, point)
        for method in study.compared
        for point in method.points.get(task, {}).values()
    ]
    if unpruned := study.unpruned.get(task):
        every.insert(0, ("unpruned", unpruned.cell.identity.pipeline, unpruned))
    timed_points = []
    for label, pipeline, point in every:
        ratio, ttft = point.cell.identity.ratio, point.cell.summary.ttft_ms
        # A bench knows pipelines, but no method that has further settings.
        benched = known.get((pipeline, ratio)) if known and label in (pipeline, "unpruned") else None
        ms = benched if benched is not None else ttft.median if ttft else None
        if ms is not None and point.accuracy is not None:
            timed_points.append(Timed(label, ratio, ms, point.accuracy, known is None or benched is not None))
    return timed_points


def pareto(timed_points: Sequence[Timed]) -> list[Timed]:
    """The Pareto front, fastest first: no other point is faster and as accurate, or as fast and more accurate.

    Times that were not measured like the others prove nothing and are left out.
    """
    front: list[Timed] = []
    comparable = [point for point in timed_points if point.comparable]
    for point in sorted(comparable, key=lambda point: (point.ms, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _draw_task(
    axes: Axes, task: str, timed_points: Sequence[Timed], study: ModelResults, styles: dict[str, Style]
) -> None:
    def plot(points: Sequence[Timed], *form: str, **options: Any) -> None:
        axes.plot([point.ms for point in points], [100 * point.accuracy for point in points], *form, **options)

    front = pareto(timed_points)
    plot(front, color=INK, alpha=0.3, linewidth=5, label="Pareto front")
    for method in study.compared:
        if points := [point for point in timed_points if point.label == method.label]:
            style = styles[method.label].markers
            plot([], **style, label=label_of(method))
            plot([point for point in points if point.comparable], **style)
            plot([point for point in points if not point.comparable], **style, alpha=_PALE)
    if unpruned := [point for point in timed_points if point.label == "unpruned"]:
        alpha = 1 if unpruned[0].comparable else _PALE
        plot(unpruned, "*", color=INK, markersize=10, label="unpruned", alpha=alpha)
    for point in _spread(front):
        if point.ratio is not None:
            at, above_left = (point.ms, 100 * point.accuracy), (-6, 3)  # nothing else lies above and left of the front
            axes.annotate(percent(point.ratio), at, above_left, textcoords="offset points", ha="right", fontsize=7)
    label_axes(axes, task, "accuracy, %", "time to first token, ms")
    axes.margins(0.1)


def _spread(front: Sequence[Timed]) -> list[Timed]:
    """Points of the front that are far enough apart for a label each; the fastest and the best come first."""
    if not front:
        return []
    width = max(point.ms for point in front) - front[0].ms or 1.0
    height = max(point.accuracy for point in front) - min(point.accuracy for point in front) or 1.0
    chosen: list[Timed] = []
    for point in (front[-1], front[0], *front):
        distances = (
            math.hypot((point.ms - other.ms) / width, (point.accuracy - other.accuracy) / height) for other in chosen
        )
        if all(distance > 0.18 for distance in distances):
            chosen.append(point)
    return chosen
