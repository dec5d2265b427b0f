"""What a study found, in plain language: the best method at every ratio, and every loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fopru_graph.report.page.table import Entry, Table
from fopru_graph.report.page.tables import points_text
from fopru_graph.results.comparisons import RANDOM, UNPRUNED, Comparison
from fopru_graph.results.methods import Method, ModelResults, Point, Ratio, Role, one_line
from fopru_graph.terminal.console import percent

_AS_WRITTEN = "as written"


def references(study: ModelResults) -> Iterator[str]:
    """A sentence for every task: what the model does with all of the picture, and with none of it."""
    blind = study.of(Role.BLIND)
    for task in study.tasks:
        named = (
            ("the unpruned model scores", study.unpruned.get(task)),
            ("without any visual token it scores", blind.at(task, None) if blind is not None else None),
        )
        parts = [
            f"{words} {points_text(point.accuracy)} % {_interval(point)}"
            for words, point in named
            if point is not None and point.accuracy is not None
        ]
        if parts:
            yield f"On {task} {', '.join(parts)}."


def best_table(study: ModelResults, comparisons: Sequence[Comparison]) -> Table | None:
    """The best method at every ratio on every task, with its interval and how far it is from the unpruned model.

    Random and the downsampled picture take part: where one of them wins, it stands there.
    """
    to_whole = {
        (c.subject.task, c.subject.method, c.subject.ratio): c
        for c in comparisons
        if (c.subject.model, c.subject.against) == (study.model, UNPRUNED)
    }
    rows, records = [], []
    for ratio in study.ratios:
        row = [Entry(percent(ratio))]
        for task in study.tasks:
            winners = _winners(study, task, ratio)
            if not winners:
                row.append(Entry("–"))
                continue
            first = winners[0]
            point = first.points[task][ratio]
            low, high = point.ci or (None, None)
            found = to_whole.get((task, first.label, ratio))
            row.append(
                Entry(
                    ", ".join(method.label for method in winners),
                    note=f"{points_text(point.accuracy)} {_interval(point)}",
                    sign=found.sign if found else 0,
                )
            )
            names = " ".join(method.label for method in winners)
            figures = {"accuracy": point.accuracy, "ci_low": low, "ci_high": high}
            records.append({"model": study.model, "ratio": ratio, "task": task, "best": names} | figures)
        rows.append(tuple(row))
    if not records:
        return None
    caption = (
        "Of all methods at that ratio, random and downsample among them, with accuracy in % and its 95 % interval; "
        "several names are a tie. ▼ and ▲: clearly below or above the unpruned model in the paired test further "
        "down. The best of several is chosen after the fact, so its figure flatters it a little."
    )
    title = f"Best method at each ratio, {study.model}"
    return Table("best", title, caption, ("Ratio", *study.tasks), (tuple(rows),), tuple(records), heads=1)


def _interval(point: Point) -> str:
    """The 95 % interval of an accuracy in brackets; nothing where there is none."""
    return f"[{points_text(point.ci[0])}, {points_text(point.ci[1])}]" if point.ci else ""


def _winners(study: ModelResults, task: str, ratio: float) -> list[Method]:
    """The methods with the highest accuracy at a ratio, as it is printed."""
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
                    where = f"all {len(below)} ratios" if 1 < len(below) == compared else _listed(below)
                    certain = [ratio for ratio in below if role is Role.RANDOM and (task, method.label, ratio) in clear]
                    parts.append(f"below {role} at {where}" + (f" (clearly at {_listed(certain)})" if certain else ""))
            if not_above := _not_above_blind(study, method, task):
                parts.append(f"not above blind at {_listed(not_above)}")
            if parts:
                yield f"{method.label} on {task}: {'; '.join(parts)}."


def failures(study: ModelResults) -> Iterator[str]:
    """A sentence for every method that failed on a whole task, with its first error."""
    for method in study.methods:
        for task in study.tasks:
            for ratio, point in sorted(method.points.get(task, {}).items(), key=lambda item: item[0] or 0):
                if point.cell.failed:
                    why = one_line(point.cell.summary.first_error or "no reason is recorded", 200)
                    yield f"{method.label} on {task}, {_ratio(ratio)}: every sample failed, the first with: {why}"


def _below(study: ModelResults, role: Role, method: Method, task: str) -> tuple[list[Ratio], int]:
    """The ratios below 1 at which a method is less accurate than the one of a role, and how many were compared."""
    reference, compared = study.of(role), 0
    found: list[Ratio] = []
    if reference is None or reference is method:
        return [], 0
    for ratio in study.ratios:
        point, other = method.at(task, ratio), reference.at(task, ratio)
        if point is None or other is None or point.accuracy is None or other.accuracy is None:
            continue
        compared += 1
        if point.accuracy < other.accuracy:
            found.append(ratio)
    return found, compared


def _not_above_blind(study: ModelResults, method: Method, task: str) -> list[Ratio]:
    blind = study.of(Role.BLIND)
    reference = blind.at(task, None) if blind is not None else None
    if reference is None or reference.accuracy is None:
        return []
    own = sorted(method.points.get(task, {}).items(), key=lambda item: -(item[0] or 0))
    return [ratio for ratio, point in own if point.accuracy is not None and point.accuracy <= reference.accuracy]


def _listed(ratios: Sequence[Ratio]) -> str:
    return ", ".join(map(_ratio, ratios))


def _ratio(ratio: Ratio) -> str:
    return _AS_WRITTEN if ratio is None else percent(ratio)
