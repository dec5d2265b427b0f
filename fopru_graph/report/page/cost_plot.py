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


class Timed(NamedTuple):
    """A method at a ratio, with its time to first token and its accuracy."""

    label: str
    ratio: float | None
    ms: float
    accuracy: float


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
            f"Times are medians of {bench.rounds} interleaved rounds of bench.json ({machine_name(bench.machine)}); "
            "cells that it lacks are not drawn."
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
    """The points of a task whose time is known: from the bench alone if there is one, else from the cells."""
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
        if known is None:
            ms = ttft.median if ttft else None
        else:  # a bench knows pipelines, but no method that has further settings
            ms = known.get((pipeline, ratio)) if label in (pipeline, "unpruned") else None
        if ms is not None and point.accuracy is not None:
            timed_points.append(Timed(label, ratio, ms, point.accuracy))
    return timed_points


def pareto(timed_points: Sequence[Timed]) -> list[Timed]:
    """The Pareto front, fastest first: no other point is faster and as accurate, or as fast and more accurate."""
    front: list[Timed] = []
    for point in sorted(timed_points, key=lambda point: (point.ms, -point.accuracy)):
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
            plot(points, **styles[method.label].markers, label=label_of(method))
    if unpruned := [point for point in timed_points if point.label == "unpruned"]:
        plot(unpruned, "*", color=INK, markersize=10, label="unpruned")
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
