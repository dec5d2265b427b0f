"""The cells of one model, ordered for comparison: tasks, methods, what each kept, and what it is compared with."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fopru_graph.results.reading import Cell

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
_PARTS = ("fopru_no_variance", "fopru_no_reordering")  # methods only for the sake of the ablation
Ratio = float | None


class Role(StrEnum):
    """What a method is in a comparison: one of those compared, or one that the others are held against."""

    METHOD = "method"
    RANDOM = "random"
    DOWNSAMPLE = "downsample"
    BLIND = "blind"


@dataclass(frozen=True, eq=False)
class Point:
    """A method on a task at a ratio; ``share`` is what it kept of the visual tokens, measured in the last layer.

    The share is that of the tokens which the unpruned model encodes of the same samples, so that a picture made smaller
    before it is encoded counts as pruned. ``low`` and ``high`` are its 10th and 90th percentiles over samples; all
    three are None where nothing was scored.
    """

    cell: Cell
    share: float | None
    low: float | None
    high: float | None

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
    """A pipeline with its settings; its points by task and ratio, the ratio None where it ran as written."""

    label: str
    pipeline: str
    role: Role
    points: Mapping[str, Mapping[Ratio, Point]]

    def at(self, task: str, ratio: Ratio) -> Point | None:
        """Its point on a task at a ratio."""
        return self.points.get(task, {}).get(ratio)


@dataclass(frozen=True, eq=False)
class Study:
    """All that was evaluated with one model; ``unpruned`` are the cells without pruning, by task."""

    model: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    unpruned: Mapping[str, Point]
    cells: tuple[Cell, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every ratio below 1 that a method was run at, largest first."""
        found = {ratio for method in self.methods for points in method.points.values() for ratio in points}
        return tuple(sorted((ratio for ratio in found if ratio is not None and ratio < 1), reverse=True))

    @property
    def compared(self) -> tuple[Method, ...]:
        """The methods that figures show: without those that only take a part out of another that is there."""
        whole = any(method.pipeline == "fopru_rank" for method in self.methods)
        return tuple(method for method in self.methods if not (whole and method.pipeline in _PARTS))

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


def studies_of(cells: Iterable[Cell]) -> list[Study]:
    """One study for every model, by name."""
    by_model: dict[str, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.identity.model, []).append(cell)
    return [_study(model, own) for model, own in sorted(by_model.items())]


def same_scores(a: Cell, b: Cell) -> bool:
    """Whether two cells have the same samples with the same scores."""
    return {key: one.score for key, one in a.samples.items()} == {key: one.score for key, one in b.samples.items()}


def one_line(text: str, most: int = 60) -> str:
    """Text from a file as one line of printable characters."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def _study(model: str, cells: list[Cell]) -> Study:
    tasks = _task_labels(cells)
    pruning = {cell.identity.pipeline for cell in cells if cell.identity.prunes}
    whole = sorted(
        (cell for cell in cells if not cell.identity.prunes),
        key=lambda cell: (cell.identity.pipeline in pruning, cell.identity.pipeline != _UNPRUNED, cell.folder.name),
    )
    references = {tasks[id(cell)]: cell for cell in reversed(whole)}
    point = functools.partial(_point, references=references, tasks=tasks)
    found: dict[str, dict[str, dict[Ratio, Point]]] = {}
    pipelines = {}
    labels = _method_labels(cells)
    for cell in cells:
        task, ratio, label = tasks[id(cell)], cell.identity.ratio, labels[id(cell)]
        if cell.identity.pipeline not in pruning and references.get(task) is cell:
            continue
        if ratio in found.get(label, {}).get(task, {}):  # a copied folder, or one that differs in nothing that is read
            label = one_line(f"{label} [{cell.folder.name}]", 120)
        pipelines[label] = cell.identity.pipeline
        found.setdefault(label, {}).setdefault(task, {})[ratio] = point(cell)
    methods = [
        Method(label, pipelines[label], _role(pipelines[label], points), points) for label, points in found.items()
    ]
    return Study(
        one_line(model),
        tuple(sorted(set(tasks.values()))),
        tuple(sorted(methods, key=_rank)),
        {task: point(cell) for task, cell in sorted(references.items())},
        tuple(cells),
    )


def _point(cell: Cell, references: Mapping[str, Cell], tasks: Mapping[int, str]) -> Point:
    if cell.failed:
        return Point(cell, None, None, None)
    reference = references.get(tasks[id(cell)])
    whole = reference.samples if reference else {}
    pairs = [(whole[key].encoded, sample.final) for key, sample in cell.samples.items() if key in whole]
    encoded, final = np.array(pairs or [(sample.encoded, sample.final) for sample in cell.samples.values()]).T
    shares = np.divide(final, encoded, out=np.zeros(len(final)), where=encoded > 0)
    low, high = np.percentile(shares, [10, 90])
    return Point(cell, float(shares.mean()), float(low), float(high))


def _task_labels(cells: list[Cell]) -> dict[int, str]:
    """The task of every cell by its `id`; figures of other data or another scorer are another task."""
    variants: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        known = variants.setdefault(cell.identity.task, [])
        if _ruler(cell) not in known:
            known.append(_ruler(cell))
    labels = {}
    for cell in cells:
        label = cell.identity.task
        if len(variants[label]) > 1:
            scorer, fingerprint = _ruler(cell)
            label = f"{label} ({scorer}, data {fingerprint[:8]})"
        labels[id(cell)] = one_line(label)
    return labels


def _ruler(cell: Cell) -> tuple[str, str]:
    return cell.identity.scorer, cell.identity.data.fingerprint


def _method_labels(cells: list[Cell]) -> dict[int, str]:
    """A pipeline's name for every cell by its `id`, with those of its settings that differ between cells."""
    own = {id(cell): _settings(cell) for cell in cells}
    settings: dict[str, list[dict[str, str]]] = {}
    for cell in cells:
        settings.setdefault(cell.identity.pipeline, []).append(own[id(cell)])
    varying = {
        pipeline: {key for one in given for key in one if len({other.get(key) for other in given}) > 1}
        for pipeline, given in settings.items()
    }
    labels = {}
    for cell in cells:
        keys = sorted(varying[cell.identity.pipeline] & set(own[id(cell)]))
        text = ", ".join(f"{key}={own[id(cell)][key]}" for key in keys)
        labels[id(cell)] = one_line(f"{cell.identity.pipeline} ({text})" if text else cell.identity.pipeline)
    return labels


def _settings(cell: Cell) -> dict[str, str]:
    """What was set besides the ratio, which is told apart already."""
    given = cell.identity.settings.items()
    return {
        key: json.dumps(value, ensure_ascii=False)
        for key, value in given
        if cell.identity.ratio is None or not key.endswith(".ratio")
    }


def _role(pipeline: str, points: Mapping[str, Mapping[Ratio, Point]]) -> Role:
    every = [point for own in points.values() for point in own.values() if point.share is not None]
    if every and all(point.share == 0 for point in every):
        return Role.BLIND
    return {RANDOM: Role.RANDOM, DOWNSAMPLE: Role.DOWNSAMPLE}.get(pipeline, Role.METHOD)


def _rank(method: Method) -> tuple[bool, int, str]:
    """Methods in the order of the house, others by name, and what they are held against last."""
    known = _ORDER.index(method.pipeline) if method.pipeline in _ORDER else len(_ORDER)
    return method.role is not Role.METHOD, known, method.label


def points(study: Study) -> Iterator[tuple[Method, str, Ratio, Point]]:
    """Every point of every method, in the order of methods, tasks and falling ratios, as written first."""
    for method in study.methods:
        for task in study.tasks:
            own = method.points.get(task, {})
            for ratio in sorted(own, key=lambda ratio: -2.0 if ratio is None else -ratio):
                yield method, task, ratio, own[ratio]
