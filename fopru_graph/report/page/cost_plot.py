"""Accuracy against the measured time to first token, and the points that no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fopru_graph.report.bench.table import machine_name
from fopru_graph.report.page.style import (
    INK,
    Drawing,
    Look,
    drawn,
    label_of,
    legend,
    looks_of,
    panels,
)
from fopru_graph.results.bench import Bench
from fopru_graph.results.methods import ModelResults
from fopru_graph.terminal.console import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Timed(NamedTuple):
    """A point of the plane of time and accuracy."""

    label: str
    ratio: float | None
    ms: float
    accuracy: float


def ttft_figure(study: ModelResults, bench: Bench | None, name: str) -> Drawing | None:
    """One panel a task: accuracy against time to first token with the Pareto front; None where no time is known."""
    bench = bench if bench is not None and bench.model == study.cells[0].identity.model else None
    tasks = {task: found for task in study.tasks if len(found := timed(study, task, bench)) > 1}
    if not tasks:
        return None
    looks = looks_of(study)
    figure, grid = panels(len(tasks), 3.9)
    for (task, found), axes in zip(tasks.items(), grid, strict=True):
        _draw_times(axes, task, found, study, looks)
    legend(figure)
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
    return drawn(figure, name, title, caption, f"{title} on {', '.join(tasks)}, Pareto front marked")


def timed(study: ModelResults, task: str, bench: Bench | None) -> list[Timed]:
    """Every point of a task whose time is known; of the bench alone where there is one, else of the cells."""
    known = {(variant.pipeline, variant.ratio): variant.ttft_ms.median for variant in bench.variants} if bench else None
    found = []
    every = [
        (method.label, method.pipeline, own)
        for method in study.compared
        for own in method.points.get(task, {}).values()
    ]
    if whole := study.unpruned.get(task):
        every.insert(0, ("unpruned", whole.cell.identity.pipeline, whole))
    for label, pipeline, point in every:
        ratio = point.cell.identity.ratio
        if known is None:
            ms = point.cell.summary.ttft_ms.median if point.cell.summary.ttft_ms else None
        else:  # a bench knows pipelines, not their further settings
            ms = known.get((pipeline, ratio)) if label in (pipeline, "unpruned") else None
        if ms is not None and point.accuracy is not None:
            found.append(Timed(label, ratio, ms, point.accuracy))
    return found


def pareto(found: Sequence[Timed]) -> list[Timed]:
    """The points that no other beats: none is as fast and more accurate, or as accurate and faster; fastest first."""
    front: list[Timed] = []
    for point in sorted(found, key=lambda point: (point.ms, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _draw_times(axes: Axes, task: str, found: Sequence[Timed], study: ModelResults, looks: dict[str, Look]) -> None:
    front = pareto(found)
    axes.plot(
        [p.ms for p in front],
        [100 * p.accuracy for p in front],
        color=INK,
        alpha=0.3,
        linewidth=5,
        label="Pareto front",
    )
    for method in study.compared:
        own = [point for point in found if point.label == method.label]
        if own:
            axes.plot(
                *([point.ms for point in own], [100 * point.accuracy for point in own]),
                **looks[method.label].line | {"linestyle": "none"},
                label=label_of(method),
            )
    for point in found:
        if point.label == "unpruned":
            axes.plot([point.ms], [100 * point.accuracy], "*", color=INK, markersize=10, label="unpruned")
    for point in _spread(front):
        if point.ratio is not None:
            axes.annotate(
                percent(point.ratio),
                (point.ms, 100 * point.accuracy),
                (-6, 3),  # above the front and left of it there is nothing
                textcoords="offset points",
                ha="right",
                fontsize=7,
            )
    axes.set_xlabel("time to first token, ms")
    axes.set_ylabel("accuracy, %")
    axes.set_title(task, fontsize=10)
    axes.margins(0.1)
    axes.grid()


def _spread(front: Sequence[Timed]) -> list[Timed]:
    """Points of the front that lie far enough apart for a label each, the fastest and the best of them first."""
    if not front:
        return []
    width = max(point.ms for point in front) - front[0].ms or 1.0
    height = max(point.accuracy for point in front) - min(point.accuracy for point in front) or 1.0
    chosen: list[Timed] = []
    for point in (front[-1], front[0], *front):
        far = (
            math.hypot((point.ms - one.ms) / width, (point.accuracy - one.accuracy) / height) > 0.18 for one in chosen
        )
        if all(far):
            chosen.append(point)
    return chosen
