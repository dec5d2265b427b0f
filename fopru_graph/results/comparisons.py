"""Which cells are compared sample by sample, and what came of it; the statistics themselves are computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fopru_graph.results.methods import Method, Point, Ratio, Role, Study, points
from fopru_graph.results.reading import Cell

UNPRUNED, RANDOM = "unpruned", "random"


@dataclass(frozen=True)
class Subject:
    """What a comparison is about: a method at a ratio on a task of a model, against ``against``."""

    model: str
    task: str
    method: str
    ratio: Ratio
    against: str


@dataclass(frozen=True, eq=False)
class Pair:
    """The scores of both on the samples that both answered, with the picture of each sample."""

    subject: Subject
    reference: Sequence[float]
    scores: Sequence[float]
    pictures: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Mean difference to the reference with its 95 % interval, McNemar's p, and p after Holm's correction."""

    subject: Subject
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def sign(self) -> int:
        """1 or −1 where the interval lies on one side of zero and the corrected p is below 5 %, else 0."""
        if self.p_holm >= 0.05 or self.low <= 0 <= self.high:
            return 0
        return 1 if self.difference > 0 else -1


@dataclass(frozen=True)
class Split:
    """A method's accuracy on the samples that the downsampled model gets wrong (group A) and right (group B).

    Samples are those that both answered; an accuracy is None where the group is empty.
    """

    task: str
    method: str
    ratio: float
    hard: float | None
    easy: float | None
    n_hard: int
    n_easy: int


def pairs_of(study: Study) -> Iterator[Pair]:
    """Every method that drops something against the unpruned model, and against random at the same ratio."""
    random = study.of(Role.RANDOM)
    for method, task, ratio, point in points(study):
        if not point.cell.identity.prunes:
            continue
        references = {UNPRUNED: study.unpruned.get(task)}
        if random is not None and random is not method and ratio is not None:
            references[RANDOM] = random.at(task, ratio)
        for against, reference in references.items():
            if reference is not None and (common := _common(reference.cell, point.cell)):
                yield Pair(
                    Subject(study.model, task, method.label, ratio, against),
                    [reference.cell.samples[key].score for key in common],
                    [point.cell.samples[key].score for key in common],
                    [point.cell.samples[key].picture for key in common],
                )


def splits_of(study: Study) -> list[Split]:
    """Accuracies by VTC-Bench's groups, at every ratio below 1 that the downsampled model was run at.

    The unpruned model comes first at each ratio: it shows how hard the group is for the model that sees everything.
    """
    downsample = study.of(Role.DOWNSAMPLE)
    found: list[Split] = []
    if downsample is None:
        return found
    for task in study.tasks:
        for ratio in study.ratios:
            judge = downsample.at(task, ratio)
            if judge is None:
                continue
            others: list[tuple[str, Point | None]] = [(UNPRUNED, study.unpruned.get(task))]
            others += [
                (method.label, _beside(method, task, ratio)) for method in study.methods if method is not downsample
            ]
            found += [
                _split(task, label, ratio, point.cell, judge.cell)
                for label, point in others
                if point is not None and _common(judge.cell, point.cell)
            ]
    return found


def _beside(method: Method, task: str, ratio: float) -> Point | None:
    """A method at a ratio; the blind model stands beside all of them."""
    return method.at(task, None if method.role is Role.BLIND else ratio)


def _split(task: str, label: str, ratio: float, cell: Cell, judge: Cell) -> Split:
    hard: list[float] = []
    easy: list[float] = []
    for key in _common(judge, cell):
        (easy if judge.samples[key].score >= 0.5 else hard).append(cell.samples[key].score)
    return Split(task, label, ratio, _mean(hard), _mean(easy), len(hard), len(easy))


def _common(a: Cell, b: Cell) -> list[str]:
    return [key for key in a.samples if key in b.samples]


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
