"""The tables of accuracies: by method as in the paper's Tables 1, 2 and 4, by type of question, and its ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fopru_graph.report.page.table import NO_ENTRY, Entry, Row, Table, best, better
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
from fopru_graph.terminal.format import accuracy_text, counted, percent, ratio_text

_Labelled = tuple[str, list[Point | None]]  # a method's label, and its point on every task


def accuracy_table(study: ModelResults) -> Table:
    """Methods × tasks at each ratio, with the mean over tasks."""
    unpruned = _unpruned(study)
    blocks = _unpruned_block(study)
    blind = study.of(Role.BLIND)
    if blind is not None:
        blocks.append(_block(study, "none", [_labelled(study, blind, None)], unpruned))
    methods = [method for method in study.methods if method is not blind]
    repeating = []
    for ratio in (None, 1.0, *study.ratios):
        rows = [row for method in methods if any((row := _labelled(study, method, ratio))[1])]
        if ratio == 1.0:
            repeating = [label for label, row in rows if _repeats(row, unpruned)]
            rows = [(label, row) for label, row in rows if label not in repeating]
        if rows:
            blocks.append(_block(study, ratio_text(ratio), rows, unpruned))
    caption = (
        "Kept is the measured share of the visual tokens in the last layer, averaged over tasks; where layers before "
        "have more, their average share stands beside it. At each ratio the "
        "best is bold; what is better than the unpruned model is underlined, whether by more than chance or not. "
        "Methods that ran as written keep what they choose, so their rows are not at one ratio. The average needs "
        "every task. – : not run; Failed: every sample is an error."
    )
    if repeating:
        same = ", ".join(repeating)
        caption += f" At 100 % these score as the unpruned model on every sample and have no row: {same}."
    title = f"Accuracy of {study.model}, %"
    records = [_record(study, "unpruned", task, 1.0, point) for task, point in study.unpruned.items()]
    records += [_record(study, method.label, task, ratio, point) for method, task, ratio, point in points(study)]
    return Table("accuracy", title, caption, _columns(study), blocks, records)


def ablation_table(study: ModelResults) -> Table | None:
    """The paper's Table 3 at every ratio at which FoPru and at least one pipeline without a part of it were run."""
    methods = {method.pipeline: method for method in study.methods if method.label in ABLATIONS}
    blocks = _unpruned_block(study)
    records: list[dict[str, Any]] = []
    for ratio in study.ratios:
        rows = [
            (name, row)
            for pipeline, name in ABLATIONS.items()
            if pipeline in methods and any(row := _labelled(study, methods[pipeline], ratio)[1])
        ]
        if len(rows) > 1 and rows[-1][0] == "FoPru":
            blocks.append(_block(study, percent(ratio), rows, _unpruned(study)))
            records += [
                _record(study, name, task, ratio, point)
                for name, row in rows
                for task, point in zip(study.tasks, row, strict=True)
                if point is not None
            ]
    if not records:
        return None
    caption = (
        "w/o Variance: the direction of the smaller variance is taken for significance. w/o Significance: "
        "neighbouring tokens are pooled instead. w/o Reordering: kept tokens stay in the order of their "
        "significance. At each ratio the best is bold; what is better than the unpruned model is underlined."
    )
    return Table("ablation", f"Ablation of FoPru on {study.model}, %", caption, _columns(study), blocks, records)


def _columns(study: ModelResults) -> tuple[str, ...]:
    return ("Ratio", "Method", "Kept", *study.tasks, *(["Average"] if len(study.tasks) > 1 else []))


def _unpruned(study: ModelResults) -> list[Point | None]:
    return [study.unpruned.get(task) for task in study.tasks]


def _labelled(study: ModelResults, method: Method, ratio: Ratio) -> _Labelled:
    return method.label, [method.at(task, ratio) for task in study.tasks]


def _repeats(row: Sequence[Point | None], unpruned: Sequence[Point | None]) -> bool:
    """Whether every point of a row has the scores of the unpruned model on every sample."""
    pairs = [(point, reference) for point, reference in zip(row, unpruned, strict=True) if point is not None]
    return all(reference is not None and same_scores(point.cell, reference.cell) for point, reference in pairs)


def _unpruned_block(study: ModelResults) -> list[Sequence[Row]]:
    return [_block(study, "100 %", [("unpruned", _unpruned(study))], [])] if study.unpruned else []


def _block(
    study: ModelResults, ratio: str, rows: Sequence[_Labelled], unpruned: Sequence[Point | None]
) -> Sequence[Row]:
    """The rows of one ratio: best of each task bold, better than ``unpruned`` (empty for itself) underlined."""
    reference = [_accuracy(point) for point in unpruned] or [None] * len(study.tasks)
    accuracies = [[_accuracy(point) for point in row] for _, row in rows]
    bold = [best(column) for column in zip(*accuracies, strict=True)]
    means = [_mean_of_all(row) for row in accuracies]
    bold_mean = best(means)
    block = []
    for i, (label, row) in enumerate(rows):
        entries = [
            _entry(point, bold[task][i], better(accuracies[i][task], reference[task]), study)
            for task, point in enumerate(row)
        ]
        if len(study.tasks) > 1:
            underline = better(means[i], _mean_of_all(reference))
            entries.append(NO_ENTRY if means[i] is None else Entry(accuracy_text(means[i]), bold_mean[i], underline))
        shares = [point.share for point in row if point is not None and point.share is not None]
        kept = percent(sum(shares) / len(shares)) if shares else "–"
        averages = [point.average for point in row if point is not None and point.average is not None]
        average = percent(sum(averages) / len(averages)) if averages else kept
        note = "" if average == kept else f"layer average {average}"
        block.append((Entry(ratio), Entry(label), Entry(kept, note=note), *entries))
    return block


def _accuracy(point: Point | None) -> float | None:
    return None if point is None else point.accuracy


def _mean_of_all(accuracies: Sequence[float | None]) -> float | None:
    """The mean over tasks; None unless all are known."""
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return sum(known) / len(known) if known and len(known) == len(accuracies) else None


def _entry(point: Point | None, bold: bool, underline: bool, study: ModelResults) -> Entry:
    if point is None:
        return NO_ENTRY
    if point.accuracy is None:
        return Entry("Failed", note=counted(point.cell.summary.errors, "error"))
    return Entry(accuracy_text(point.accuracy), bold, underline, note=_note(point, study))


def _note(point: Point, study: ModelResults) -> str:
    """The errors of a cell, and its number of samples where other cells of the task have more."""
    summary = point.cell.summary
    most = max(
        cell.summary.n + cell.summary.errors
        for cell in study.cells
        if (cell.identity.task, cell.identity.data) == (point.cell.identity.task, point.cell.identity.data)
    )
    notes = [counted(summary.errors, "error")] if summary.errors else []
    notes += [f"n = {summary.n}"] if summary.n + summary.errors < most else []
    return ", ".join(notes)


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
        "share_layer_average": point.average,
        "accuracy": summary.accuracy,
        "ci_low": low,
        "ci_high": high,
        "relative_accuracy": relative,
        "n": summary.n,
        "errors": summary.errors,
        "ttft_median_ms": summary.ttft_ms.median if summary.ttft_ms else None,
        "samples_per_s": summary.samples_per_s,
        "batch_size": summary.batch_size,
        "kv_bytes": summary.kv_bytes,
        **{f"{kind}_tokens": count for kind, count in summary.tokens.model_dump().items()},
        "metrics": " ".join(f"{name}={value}" for name, value in sorted(summary.metrics.items())),
        "folder": point.cell.folder.name,
    }


def type_table(study: ModelResults, task: str) -> Table | None:
    """Accuracy by type of question as a heat table; None where all questions are of one type."""
    rows = [("100 %", "unpruned", study.unpruned.get(task))]
    for ratio in (None, *study.main_ratios):
        for method in study.methods:
            text = "none" if method.role is Role.BLIND else ratio_text(ratio)
            rows.append((text, method.label, method.at(task, ratio)))
    shown = [
        (text, label, point.cell.summary.per_type)
        for text, label, point in rows
        if point is not None and point.accuracy is not None
    ]
    types = sorted({kind for _, _, by_type in shown for kind in by_type})
    if len(types) < 2:
        return None
    known = [
        figures.accuracy for _, _, by_type in shown for figures in by_type.values() if figures.accuracy is not None
    ]
    low, span = min(known), max(known) - min(known) or 1.0
    blocks: dict[str, list[Row]] = {}
    for text, label, by_type in shown:
        accuracies = [by_type[kind].accuracy if kind in by_type else None for kind in types]
        entries = (
            NO_ENTRY if accuracy is None else Entry(accuracy_text(accuracy), heat=(accuracy - low) / span)
            for accuracy in accuracies
        )
        blocks.setdefault(text, []).append((Entry(text), Entry(label), *entries))
    counts = {kind: max(by_type[kind].n for _, _, by_type in shown if kind in by_type) for kind in types}
    columns = ("Ratio", "Method", *(f"{one_line(kind, 30)} (n = {n})" for kind, n in counts.items()))
    caption = "The stronger the colour, the more answers are right. All ratios are in the CSV."
    title = f"Accuracy of {study.model} on {task} by type of question, %"
    return Table(f"types-{task}", title, caption, columns, tuple(blocks.values()), _type_records(study, task))


def _type_records(study: ModelResults, task: str) -> list[dict[str, Any]]:
    labelled = [(method.label, ratio, point) for method, name, ratio, point in points(study) if name == task]
    if task in study.unpruned:
        labelled.insert(0, ("unpruned", 1.0, study.unpruned[task]))
    return [
        {"model": study.model, "task": task, "method": label, "ratio": ratio, "type": kind, **figures.model_dump()}
        for label, ratio, point in labelled
        for kind, figures in sorted(point.cell.summary.per_type.items())
    ]
