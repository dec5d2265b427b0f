"""Cells compared sample by sample: which are, what came of it, and accuracies on hard and easy samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fopru_graph.results.methods import ModelResults, Point, Ratio, Role, points
from fopru_graph.results.reading import FinishedCell
from fopru_graph.results.statistics import holm, mcnemar, paired_difference

UNPRUNED, RANDOM = "unpruned", "random"


@dataclass(frozen=True)
class ComparisonSubject:
    """A method at a ratio on a task of a model, compared with the reference ``against``: `UNPRUNED` or `RANDOM`."""

    model: str
    task: str
    method: str
    ratio: Ratio
    against: str


@dataclass(frozen=True, eq=False)
class PairedScores:
    """The scores of a method and of its reference on the samples that both answered, and the samples' pictures."""

    subject: ComparisonSubject
    reference: Sequence[float]
    scores: Sequence[float]
    pictures: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Mean difference to the reference with its 95 % interval, McNemar's p, and p after Holm's correction."""

    subject: ComparisonSubject
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
class GroupAccuracy:
    """A method's accuracy on the samples that the downsampled model gets wrong (group A, hard) and right (B, easy).

    Samples are those that both answered; an accuracy is None where the group is empty.
    """

    task: str
    method: str
    ratio: float
    hard: float | None
    easy: float | None
    n_hard: int
    n_easy: int


def paired_scores(results: ModelResults) -> Iterator[PairedScores]:
    """Every method that drops something against the unpruned model, and against random at the same ratio."""
    random = results.of(Role.RANDOM)
    for method, task, ratio, point in points(results):
        if not point.cell.identity.prunes:
            continue
        references = {UNPRUNED: results.unpruned.get(task)}
        if random is not None and random is not method and ratio is not None:
            references[RANDOM] = random.at(task, ratio)
        for against, reference in references.items():
            if reference is not None and (common := _common_ids(reference.cell, point.cell)):
                yield PairedScores(
                    ComparisonSubject(results.model, task, method.label, ratio, against),
                    [reference.cell.samples[key].score for key in common],
                    [point.cell.samples[key].score for key in common],
                    [point.cell.samples[key].picture for key in common],
                )


def compare(pairs: Iterable[PairedScores]) -> list[Comparison]:
    """Test every pair; p values are corrected for all pairs of the same model against the same reference."""
    pairs = list(pairs)
    ps = [mcnemar(pair.reference, pair.scores) for pair in pairs]
    families: dict[tuple[str, str], list[int]] = {}
    for number, pair in enumerate(pairs):
        families.setdefault((pair.subject.model, pair.subject.against), []).append(number)
    corrected: dict[int, float] = {}
    for numbers in families.values():
        corrected |= zip(numbers, holm([ps[number] for number in numbers]), strict=True)
    return [
        Comparison(
            pair.subject,
            len(pair.scores),
            *paired_difference(pair.reference, pair.scores, pair.pictures),
            ps[number],
            corrected[number],
        )
        for number, pair in enumerate(pairs)
    ]


def group_accuracies(results: ModelResults) -> list[GroupAccuracy]:
    """Accuracies by VTC-Bench's groups, at every ratio below 1 that the downsampled model was run at.

    The unpruned model comes first at each ratio: it shows how hard a group is for the model that sees everything.
    """
    downsample = results.of(Role.DOWNSAMPLE)
    if downsample is None:
        return []
    accuracies = []
    for task in results.tasks:
        for ratio in results.ratios:
            judge = downsample.at(task, ratio)
            if judge is None:
                continue
            others: list[tuple[str, Point | None]] = [(UNPRUNED, results.unpruned.get(task))]
            for method in results.methods:
                if method is not downsample:  # the blind model has no ratio: it stands beside all of them
                    others.append((method.label, method.at(task, None if method.role is Role.BLIND else ratio)))
            accuracies += [
                _group_accuracy(task, label, ratio, point.cell, judge.cell)
                for label, point in others
                if point is not None and _common_ids(judge.cell, point.cell)
            ]
    return accuracies


def _group_accuracy(task: str, method: str, ratio: float, cell: FinishedCell, judge: FinishedCell) -> GroupAccuracy:
    hard: list[float] = []
    easy: list[float] = []
    for key in _common_ids(judge, cell):
        (easy if judge.samples[key].score >= 0.5 else hard).append(cell.samples[key].score)
    return GroupAccuracy(task, method, ratio, _mean(hard), _mean(easy), len(hard), len(easy))


def _common_ids(a: FinishedCell, b: FinishedCell) -> list[str]:
    return [key for key in a.samples if key in b.samples]


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
