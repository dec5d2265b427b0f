"""The findings of a study: the best method at every ratio, and sentences about references, losses and failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fopru_graph.report.page.table import NO_ENTRY, Entry, Table
from fopru_graph.results import schema
from fopru_graph.results.comparisons import RANDOM, UNPRUNED, Comparison
from fopru_graph.results.methods import Method, ModelResults, Point, Ratio, Role, one_line
from fopru_graph.terminal.format import accuracy_text, percent, ratio_text


@dataclass(frozen=True)
class Sentences:
    """A list of sentences for the page, below a title if it has one."""

    template: ClassVar[str] = "sentences"
    lines: tuple[str, ...]
    title: str = ""
    note: str = ""


def references(study: ModelResults) -> Iterator[str]:
    """A sentence for every task: the accuracy of the unpruned model, and that without any visual token."""
    blind = study.of(Role.BLIND)
    for task in study.tasks:
        references = (
            ("the unpruned model scores", study.unpruned.get(task)),
            ("without any visual token it scores", blind.at(task, None) if blind is not None else None),
        )
        parts = [
            f"{words} {accuracy_text(point.accuracy)} % {_interval(point)}"
            for words, point in references
            if point is not None and point.accuracy is not None
        ]
        if parts:
            yield f"On {task} {', '.join(parts)}."


def best_table(study: ModelResults, comparisons: Sequence[Comparison]) -> Table | None:
    """The best methods at every ratio on every task; random and the downsampled picture can win too."""
    signs = {
        (c.subject.task, c.subject.method, c.subject.ratio): c.sign
        for c in comparisons
        if (c.subject.model, c.subject.against) == (study.model, UNPRUNED)
    }
    rows, records = [], []
    for ratio in study.ratios:
        row = [Entry(percent(ratio))]
        for task in study.tasks:
            winners = _winners(study, task, ratio)
            if not winners:
                row.append(NO_ENTRY)
                continue
            labels = [method.label for method in winners]
            point = winners[0].points[task][ratio]
            note = f"{accuracy_text(point.accuracy)} {_interval(point)}"
            row.append(Entry(", ".join(labels), note=note, sign=signs.get((task, labels[0], ratio), 0)))
            low, high = point.ci or (None, None)
            figures = {"accuracy": point.accuracy, "ci_low": low, "ci_high": high}
            records.append({"model": study.model, "ratio": ratio, "task": task, "best": " ".join(labels)} | figures)
        rows.append(tuple(row))
    if not records:
        return None
    caption = (
        "Of all methods at that ratio, random and downsample among them, with accuracy in % and its 95 % interval; "
        "several names are a tie. ▼ and ▲: clearly below or above the unpruned model in the paired test further "
        "down. The best of several is chosen after the fact, so its figure flatters it a little."
    )
    title = f"Best method at each ratio, {study.model}"
    return Table("best", title, caption, ("Ratio", *study.tasks), [rows], records, heads=1)


def _interval(point: Point) -> str:
    """The 95 % interval of an accuracy in brackets, if it is known."""
    return f"[{accuracy_text(point.ci[0])}, {accuracy_text(point.ci[1])}]" if point.ci else ""


def _winners(study: ModelResults, task: str, ratio: float) -> list[Method]:
    """The methods with the highest accuracy at a ratio, after rounding as it is printed."""
    known = [
        (round(point.accuracy, 4), method)
        for method in study.methods
        if (point := method.at(task, ratio)) is not None and point.accuracy is not None
    ]
    most = max((accuracy for accuracy, _ in known), default=None)
    return [method for accuracy, method in known if accuracy == most]


def losses(study: ModelResults, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """A sentence for every method and task where it scores below random, below downsample, or not above blind."""
    clear = {
        (c.subject.task, c.subject.method, c.subject.ratio)
        for c in comparisons
        if (c.subject.model, c.subject.against) == (study.model, RANDOM) and c.sign < 0
    }
    for method in study.methods:
        if method.role in (Role.RANDOM, Role.BLIND):
            continue
        for task in study.tasks:
            parts = []
            for role in (Role.RANDOM, Role.DOWNSAMPLE):
                below, compared = _below(study, role, method, task)
                if below:
                    ratios = f"all {len(below)} ratios" if 1 < len(below) == compared else _listed(below)
                    certain = [ratio for ratio in below if role is Role.RANDOM and (task, method.label, ratio) in clear]
                    parts.append(f"below {role} at {ratios}" + (f" (clearly at {_listed(certain)})" if certain else ""))
            if not_above := _not_above_blind(study, method, task):
                parts.append(f"not above blind at {_listed(not_above)}")
            if parts:
                yield f"{method.label} on {task}: {'; '.join(parts)}."


def failures(study: ModelResults) -> Iterator[str]:
    """A sentence for every method that failed on a whole task, with its most common error."""
    for method in study.methods:
        for task in study.tasks:
            for ratio, point in sorted(method.points.get(task, {}).items(), key=lambda item: item[0] or 0):
                if point.cell.failed:
                    why = one_line(schema.failures(point.cell.summary.model_dump()) or "there is no sample", 250)
                    yield f"{method.label} on {task}, {ratio_text(ratio)}: {why}"


def _below(study: ModelResults, role: Role, method: Method, task: str) -> tuple[list[Ratio], int]:
    """The ratios below 1 at which a method scores less than the reference of a role, and how many were compared."""
    reference, compared = study.of(role), 0
    below: list[Ratio] = []
    if reference is None or reference is method:
        return [], 0
    for ratio in study.ratios:
        point, other = method.at(task, ratio), reference.at(task, ratio)
        if point is None or other is None or point.accuracy is None or other.accuracy is None:
            continue
        compared += 1
        if point.accuracy < other.accuracy:
            below.append(ratio)
    return below, compared


def _not_above_blind(study: ModelResults, method: Method, task: str) -> list[Ratio]:
    """The ratios at which a method scores no more than the model without any visual token, largest first."""
    blind = study.of(Role.BLIND)
    reference = blind.at(task, None) if blind is not None else None
    if reference is None or reference.accuracy is None:
        return []
    by_ratio = sorted(method.points.get(task, {}).items(), key=lambda item: -(item[0] or 0))
    return [ratio for ratio, point in by_ratio if point.accuracy is not None and point.accuracy <= reference.accuracy]


def _listed(ratios: Sequence[Ratio]) -> str:
    return ", ".join(map(ratio_text, ratios))
