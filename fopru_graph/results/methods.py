"""The cells of a model, ordered for comparison: by task, by method and by ratio, with what each method kept."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isnan

import numpy as np

from fopru_graph.results.reading import FinishedCell
from fopru_graph.results.schema import Identity

RANDOM, DOWNSAMPLE = "random", "downsample"  # the shipped pipelines that others are held against
_UNPRUNED = "baseline"
_ORDER = (
    *("fopru_rank", "fopru_row", "fopru_fastv", "fopru_mass", "fastv", "fastervlm", "prumerge", "prumerge_plus"),
    *("spatial_pool", "fopru_no_variance", "fopru_no_reordering"),
)
ABLATIONS = {  # the paper's Table 3: the pipeline, and what it is called there
    "fopru_no_variance": "w/o Variance",
    "spatial_pool": "w/o Significance",
    "fopru_no_reordering": "w/o Reordering",
    "fopru_rank": "FoPru",
}
_ABLATIONS_ONLY = ("fopru_no_variance", "fopru_no_reordering")  # no methods that somebody would use
Ratio = float | None  # None: the pipeline ran as its file says


class Role(StrEnum):
    """What a method is in a comparison: a method under test, or a reference that the others are held against."""

    METHOD = "method"
    RANDOM = "random"
    DOWNSAMPLE = "downsample"
    BLIND = "blind"


@dataclass(frozen=True, eq=False)
class Point:
    """A method on a task at a ratio; ``share`` is the share of visual tokens that the last layer still has.

    ``average`` is the share that a layer of the language model has on average, the other way to count: it is larger for
    what prunes inside the language model. None where rows lack it.

    Shares are of the tokens which the unpruned model encodes of the same samples, so that a picture made smaller
    before it is encoded counts as pruned; without its cell, of the most that any method encodes of them. ``low`` and
    ``high`` are the share's 10th and 90th percentiles over samples; all four are None where nothing was scored.
    """

    cell: FinishedCell
    share: float | None
    low: float | None
    high: float | None
    average: float | None

    @property
    def accuracy(self) -> float | None:
        """Mean score; None where every sample is an error."""
        return self.cell.summary.accuracy

    @property
    def ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy."""
        low, high = self.cell.summary.ci or (None, None)
        return None if low is None or high is None else (low, high)


@dataclass(frozen=True, eq=False)
class Method:
    """A pipeline with its settings; ``points`` by task and ratio."""

    label: str
    pipeline: str
    role: Role
    points: Mapping[str, Mapping[Ratio, Point]]

    def at(self, task: str, ratio: Ratio) -> Point | None:
        """The point on a task at a ratio."""
        return self.points.get(task, {}).get(ratio)


@dataclass(frozen=True, eq=False)
class ModelResults:
    """All results of a model; ``unpruned`` holds the points without pruning by task."""

    model: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    unpruned: Mapping[str, Point]
    cells: tuple[FinishedCell, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every ratio below 1 that a method was run at, largest first."""
        ratios = {ratio for method in self.methods for points in method.points.values() for ratio in points}
        return tuple(sorted((ratio for ratio in ratios if ratio is not None and ratio < 1), reverse=True))

    @property
    def compared(self) -> tuple[Method, ...]:
        """The methods that figures show: ablations of fopru_rank only where fopru_rank itself is missing."""
        complete = any(method.pipeline == "fopru_rank" for method in self.methods)
        return tuple(method for method in self.methods if not (complete and method.pipeline in _ABLATIONS_ONLY))

    @property
    def main_ratios(self) -> tuple[float, ...]:
        """The ratios of the paper's tables (75, 50 and 25 %) where they were run, else up to three of all, evenly."""
        ratios = self.ratios
        paper = tuple(ratio for ratio in (0.75, 0.5, 0.25) if ratio in ratios)
        if paper or len(ratios) <= 3:
            return paper or ratios
        return ratios[0], ratios[len(ratios) // 2], ratios[-1]

    def of(self, role: Role) -> Method | None:
        """The method with a role, if there is one."""
        return next((method for method in self.methods if method.role is role), None)


def results_by_model(cells: Iterable[FinishedCell]) -> list[ModelResults]:
    """The results of every model, in the order of the models' names."""
    by_model = _grouped(cells, lambda identity: identity.model)
    return [_results_of(model, by_model[model]) for model in sorted(by_model)]


def points(results: ModelResults) -> Iterator[tuple[Method, str, Ratio, Point]]:
    """Every point of every method, in the order of methods, tasks and falling ratios, runs without a ratio first."""
    for method in results.methods:
        for task in results.tasks:
            by_ratio = method.points.get(task, {})
            for ratio in sorted(by_ratio, key=lambda ratio: -2.0 if ratio is None else -ratio):
                yield method, task, ratio, by_ratio[ratio]


def same_scores(a: FinishedCell, b: FinishedCell) -> bool:
    """Whether two cells have the same samples with the same scores."""
    first, second = ({key: sample.score for key, sample in cell.samples.items()} for cell in (a, b))
    return first == second


def one_line(text: str, most: int = 60) -> str:
    """Text from a file as a line of at most ``most`` printable characters."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def _results_of(model: str, cells: list[FinishedCell]) -> ModelResults:
    tasks = _task_labels(cells)
    labels = _method_labels(cells)
    pruning = {cell.identity.pipeline for cell in cells if cell.identity.prunes}
    references = _references(cells, tasks, pruning)
    whole = _whole_counts(cells, tasks, references)
    point = functools.partial(_point, whole=whole, tasks=tasks)
    by_method: dict[str, dict[str, dict[Ratio, Point]]] = {}
    pipelines = {}
    for cell in cells:
        task, ratio, label = tasks[id(cell)], cell.identity.ratio, labels[id(cell)]
        if cell.identity.pipeline not in pruning and references.get(task) is cell:
            continue
        if ratio in by_method.get(label, {}).get(task, {}):  # a copied folder: its name alone differs
            label = one_line(f"{label} [{cell.folder.name}]", 120)
        pipelines[label] = cell.identity.pipeline
        by_method.setdefault(label, {}).setdefault(task, {})[ratio] = point(cell)
    methods = [
        Method(label, pipelines[label], _role(pipelines[label], points), points) for label, points in by_method.items()
    ]
    return ModelResults(
        one_line(model),
        tuple(sorted(set(tasks.values()))),
        tuple(sorted(methods, key=_order)),
        {task: point(cell) for task, cell in sorted(references.items())},
        tuple(cells),
    )


def _references(cells: list[FinishedCell], tasks: Mapping[int, str], pruning: set[str]) -> dict[str, FinishedCell]:
    """The unpruned cell of each task: of the baseline if there is one, else of a method at ratio 1."""
    unpruned = sorted(
        (cell for cell in cells if not cell.identity.prunes),
        key=lambda cell: (cell.identity.pipeline in pruning, cell.identity.pipeline != _UNPRUNED, cell.folder.name),
    )
    return {tasks[id(cell)]: cell for cell in reversed(unpruned)}


def _whole_counts(
    cells: list[FinishedCell], tasks: Mapping[int, str], references: Mapping[str, FinishedCell]
) -> dict[str, dict[str, int]]:
    """For each task the visual tokens of its samples, by id, where nothing makes them fewer."""
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        known = counts.setdefault(tasks[id(cell)], {})
        for key, sample in cell.samples.items():
            known[key] = max(known.get(key, 0), sample.encoded)
    for task, cell in references.items():
        if cell.samples:
            counts[task] = {key: sample.encoded for key, sample in cell.samples.items()}
    return counts


def _point(cell: FinishedCell, whole: Mapping[str, Mapping[str, int]], tasks: Mapping[int, str]) -> Point:
    if cell.failed:
        return Point(cell, None, None, None, None)
    of_task = whole[tasks[id(cell)]]
    pairs = [(of_task[key], sample) for key, sample in cell.samples.items() if key in of_task]
    pairs = pairs or [(sample.encoded, sample) for sample in cell.samples.values()]
    counts = [(encoded, sample.final, sample.layer_average) for encoded, sample in pairs]
    encoded, final, average = np.array(counts, dtype=float).T  # None becomes nan
    shares, averages = (
        np.divide(left, encoded, out=np.zeros(len(left)), where=encoded > 0) for left in (final, average)
    )
    low, high = np.percentile(shares, [10, 90])
    mean = float(averages.mean())
    return Point(cell, float(shares.mean()), float(low), float(high), None if isnan(mean) else mean)


def _grouped(cells: Iterable[FinishedCell], key: Callable[[Identity], str]) -> dict[str, list[FinishedCell]]:
    groups: dict[str, list[FinishedCell]] = {}
    for cell in cells:
        groups.setdefault(key(cell.identity), []).append(cell)
    return groups


def _task_labels(cells: list[FinishedCell]) -> dict[int, str]:
    """The task of every cell by the cell's `id`; results of other data or of another scorer are another task."""
    labels = {}
    for task, group in _grouped(cells, lambda identity: identity.task).items():
        rules = [(cell.identity.scorer, cell.identity.data.fingerprint) for cell in group]
        for cell, (scorer, fingerprint) in zip(group, rules, strict=True):
            detail = f" ({scorer}, data {fingerprint[:8]})" if len(set(rules)) > 1 else ""
            labels[id(cell)] = one_line(task + detail)
    return labels


def _method_labels(cells: list[FinishedCell]) -> dict[int, str]:
    """A label for every cell by the cell's `id`: its pipeline, with the settings that differ between cells."""
    labels = {}
    for pipeline, group in _grouped(cells, lambda identity: identity.pipeline).items():
        settings = [_settings(cell) for cell in group]
        keys: set[str] = set().union(*settings)
        varying = sorted(key for key in keys if len({given.get(key) for given in settings}) > 1)
        for cell, given in zip(group, settings, strict=True):
            text = ", ".join(f"{key}={given[key]}" for key in varying if key in given)
            labels[id(cell)] = one_line(f"{pipeline} ({text})" if text else pipeline)
    return labels


def _settings(cell: FinishedCell) -> dict[str, str]:
    """What was set besides the ratio."""
    return {
        key: json.dumps(value, ensure_ascii=False)
        for key, value in cell.identity.settings.items()
        if cell.identity.ratio is None or not key.endswith(".ratio")
    }


def _role(pipeline: str, points: Mapping[str, Mapping[Ratio, Point]]) -> Role:
    shares = [p.share for by_ratio in points.values() for p in by_ratio.values() if p.share is not None]
    if shares and not any(shares):
        return Role.BLIND
    return {RANDOM: Role.RANDOM, DOWNSAMPLE: Role.DOWNSAMPLE}.get(pipeline, Role.METHOD)


def _order(method: Method) -> tuple[bool, int, str]:
    """Methods as in `_ORDER`, others by name, references last."""
    known = _ORDER.index(method.pipeline) if method.pipeline in _ORDER else len(_ORDER)
    return method.role is not Role.METHOD, known, method.label
