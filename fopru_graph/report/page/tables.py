"""The tables of a study: accuracies as in the paper's Tables 1, 2 and 4, by type of question, and its ablation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fopru_graph.report.page.table import Entry, Row, Table, best, better
from fopru_graph.results.methods import (
    ABLATIONS,
    Method,
    ModelResults,
    Point,
    Ratio,
    Role,
    one_line,
    points,
    same_scores,
)
from fopru_graph.terminal.console import percent

_NONE = Entry("–")


def accuracy_table(study: ModelResults) -> Table:
    """Methods × tasks at each ratio with their average: best of a ratio bold, better than unpruned underlined."""
    whole = [study.unpruned.get(task) for task in study.tasks]
    blocks = [_block(study, "100 %", [("unpruned", whole)], [])] if study.unpruned else []
    blind = study.of(Role.BLIND)
    if blind is not None:
        blocks.append(_block(study, "none", [(blind.label, _row_points(study, blind, None))], whole))
    others = [method for method in study.methods if method is not blind]
    for ratio in (None, 1.0, *study.ratios):
        rows = [(method.label, _row_points(study, method, ratio)) for method in others]
        rows = [(label, row) for label, row in rows if any(row)]
        if ratio == 1.0:
            rows = [(label, row) for label, row in rows if not _repeats(row, whole)]
        if rows:
            blocks.append(_block(study, "as written" if ratio is None else percent(ratio), rows, whole))
    columns = ("Ratio", "Method", "Kept", *study.tasks, *(["Average"] if len(study.tasks) > 1 else []))
    return Table(
        "accuracy", f"Accuracy of {study.model}, %", _caption(study, others), columns, tuple(blocks), _records(study)
    )


def _caption(study: ModelResults, methods: Iterable[Method]) -> str:
    caption = (
        "Kept is the measured share of the visual tokens in the last layer, averaged over tasks. At each ratio the "
        "best is bold; what is better than the unpruned model is underlined, whether by more than chance or not. "
        "Methods that ran as written keep what they choose, so their rows are not at one ratio. The average needs "
        "every task. – : not run; Failed: every sample is an error."
    )
    same = [
        method.label
        for method in methods
        if any(row := _row_points(study, method, 1.0))
        and _repeats(row, [study.unpruned.get(task) for task in study.tasks])
    ]
    if same:
        caption += f" At 100 % these score as the unpruned model on every sample and have no row: {', '.join(same)}."
    return caption


def _row_points(study: ModelResults, method: Method, ratio: Ratio) -> list[Point | None]:
    return [method.at(task, ratio) for task in study.tasks]


def _repeats(row: Sequence[Point | None], whole: Sequence[Point | None]) -> bool:
    """Whether nothing in a row differs from the unpruned model on any sample."""
    pairs = [(point, reference) for point, reference in zip(row, whole, strict=True) if point is not None]
    return all(reference is not None and same_scores(point.cell, reference.cell) for point, reference in pairs)


def _block(
    study: ModelResults, ratio: str, rows: Sequence[tuple[str, list[Point | None]]], whole: Sequence[Point | None]
) -> tuple[Row, ...]:
    """The rows of one ratio; ``whole`` is the row of the unpruned model, empty for that itself."""
    averages = [_average(row) for _, row in rows]
    columns = list(zip(*(row for _, row in rows), strict=True))
    bold = [best([_accuracy(point) for point in column]) for column in columns]
    reference = _average(whole) if whole else None
    block = []
    for place, (label, row) in enumerate(rows):
        entries = [
            _entry(point, bold[task][place], better(_accuracy(point), _accuracy(whole[task]) if whole else None), study)
            for task, point in enumerate(row)
        ]
        if len(study.tasks) > 1:
            marks = best(averages)[place], better(averages[place], reference)
            entries.append(_NONE if averages[place] is None else Entry(points_text(averages[place]), *marks))
        shares = [point.share for point in row if point is not None and point.share is not None]
        kept = percent(sum(shares) / len(shares)) if shares else "–"
        block.append((Entry(ratio), Entry(label), Entry(kept), *entries))
    return tuple(block)


def _accuracy(point: Point | None) -> float | None:
    return None if point is None else point.accuracy


def _average(row: Sequence[Point | None]) -> float | None:
    """The mean over tasks; None unless there is a figure for each."""
    known = [accuracy for point in row if (accuracy := _accuracy(point)) is not None]
    return sum(known) / len(known) if known and len(known) == len(row) else None


def _entry(point: Point | None, bold: bool, underline: bool, study: ModelResults) -> Entry:
    if point is None:
        return _NONE
    if point.accuracy is None:
        return Entry("Failed", note=errors_text(point.cell.summary.errors))
    return Entry(points_text(point.accuracy), bold, underline, note=_note(point, study))


def _note(point: Point, study: ModelResults) -> str:
    """What one must know of an accuracy: its errors, and that it is of fewer samples than others of its task."""
    summary = point.cell.summary
    most = max(
        cell.summary.n + cell.summary.errors
        for cell in study.cells
        if (cell.identity.task, cell.identity.data) == (point.cell.identity.task, point.cell.identity.data)
    )
    notes = [errors_text(summary.errors)] if summary.errors else []
    notes += [f"n = {summary.n}"] if summary.n + summary.errors < most else []
    return ", ".join(notes)


def errors_text(count: int) -> str:
    """A number of error rows, e.g. ``2 errors``."""
    return f"{count} error{'s' if count != 1 else ''}"


def points_text(share: float | None) -> str:
    """A share in percent with two decimals, as the paper prints accuracies; ``–`` for None."""
    return "–" if share is None else f"{100 * share:.2f}"


def _records(study: ModelResults) -> tuple[dict[str, Any], ...]:
    whole = (("unpruned", task, 1.0, point) for task, point in study.unpruned.items())
    others = ((method.label, task, ratio, point) for method, task, ratio, point in points(study))
    return tuple(_record(study, *found) for found in (*whole, *others))


def _record(study: ModelResults, label: str, task: str, ratio: Ratio, point: Point) -> dict[str, Any]:
    summary, reference = point.cell.summary, _accuracy(study.unpruned.get(task))
    low, high = point.ci or (None, None)
    relative = summary.accuracy / reference if summary.accuracy is not None and reference else None
    return {
        "model": study.model,
        "task": task,
        "method": label,
        "pipeline": one_line(point.cell.identity.pipeline),
        "ratio": ratio,
        "share_final": point.share,
        "share_final_p10": point.low,
        "share_final_p90": point.high,
        "accuracy": summary.accuracy,
        "ci_low": low,
        "ci_high": high,
        "relative_accuracy": relative,
        "n": summary.n,
        "errors": summary.errors,
        "ttft_median_ms": summary.ttft_ms.median if summary.ttft_ms else None,
        "kv_bytes": summary.kv_bytes,
        **{f"{kind}_tokens": count for kind, count in summary.tokens.model_dump().items()},
        "metrics": " ".join(f"{name}={value}" for name, value in sorted(summary.metrics.items())),
        "folder": point.cell.folder.name,
    }


def type_table(study: ModelResults, task: str) -> Table | None:
    """Accuracy by type of question as a heat table; None where all questions are of one type."""
    rows = [("100 %", "unpruned", study.unpruned.get(task))]
    ratios: dict[Ratio, str] = {None: "as written"} | {ratio: percent(ratio) for ratio in study.main_ratios}
    for ratio, text in ratios.items():
        for method in study.methods:
            rows.append(("none" if method.role is Role.BLIND else text, method.label, method.at(task, ratio)))
    shown = [(text, label, point) for text, label, point in rows if point is not None and point.accuracy is not None]
    types = sorted({name for _, _, point in shown for name in point.cell.summary.per_type})
    if len(types) < 2:
        return None
    counts = [max((_of_type(point, name)[1] for _, _, point in shown), default=0) for name in types]
    columns = ("Ratio", "Method", *(f"{one_line(name, 30)} (n = {n})" for name, n in zip(types, counts, strict=True)))
    blocks: dict[str, list[Row]] = {}
    every = [share for _, _, point in shown for name in types if (share := _of_type(point, name)[0]) is not None]
    low, span = min(every), max(every) - min(every) or 1.0
    for text, label, point in shown:
        found = [_of_type(point, name)[0] for name in types]
        entries = tuple(
            _NONE if share is None else Entry(points_text(share), heat=(share - low) / span) for share in found
        )
        blocks.setdefault(text, []).append((Entry(text), Entry(label), *entries))
    caption = "The stronger the colour, the more answers are right. All ratios are in the CSV."
    title = f"Accuracy of {study.model} on {task} by type of question, %"
    return Table(
        f"types-{task}", title, caption, columns, tuple(map(tuple, blocks.values())), _type_records(study, task)
    )


def _of_type(point: Point, name: str) -> tuple[float | None, int]:
    found = point.cell.summary.per_type.get(name)
    return (found.accuracy, found.n) if found else (None, 0)


def _type_records(study: ModelResults, task: str) -> tuple[dict[str, Any], ...]:
    own = [(method.label, ratio, point) for method, name, ratio, point in points(study) if name == task]
    if task in study.unpruned:
        own.insert(0, ("unpruned", 1.0, study.unpruned[task]))
    return tuple(
        {"model": study.model, "task": task, "method": label, "ratio": ratio, "type": kind, **found.model_dump()}
        for label, ratio, point in own
        for kind, found in sorted(point.cell.summary.per_type.items())
    )


def ablation_table(study: ModelResults) -> Table | None:
    """The paper's Table 3 at every ratio that FoPru and at least one pipeline without a part of it were run at."""
    named = {method.pipeline: method for method in study.methods if method.label in ABLATIONS}
    whole = [study.unpruned.get(task) for task in study.tasks]
    blocks = [_block(study, "100 %", [("unpruned", whole)], [])] if study.unpruned else []
    records: list[dict[str, Any]] = []
    for ratio in study.ratios:
        rows = [
            (name, _row_points(study, named[pipeline], ratio))
            for pipeline, name in ABLATIONS.items()
            if pipeline in named
        ]
        rows = [(name, row) for name, row in rows if any(row)]
        if len(rows) > 1 and rows[-1][0] == "FoPru":
            blocks.append(_block(study, percent(ratio), rows, whole))
            records += [
                _record(study, name, task, ratio, point)
                for name, row in rows
                for task, point in zip(study.tasks, row, strict=True)
                if point is not None
            ]
    if not records:
        return None
    columns = ("Ratio", "Method", "Kept", *study.tasks, *(["Average"] if len(study.tasks) > 1 else []))
    caption = (
        "w/o Variance: the direction of the smaller variance is taken for significance. w/o Significance: "
        "neighbouring tokens are pooled instead. w/o Reordering: kept tokens stay in the order of their "
        "significance. At each ratio the best is bold; what is better than the unpruned model is underlined."
    )
    return Table("ablation", f"Ablation of FoPru on {study.model}, %", caption, columns, tuple(blocks), tuple(records))
