"""Tables of comparisons sample by sample: differences with their tests, and the groups of VTC-Bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fopru_graph.report.page.table import NO_ENTRY, Entry, Row, Table, best
from fopru_graph.results.comparisons import UNPRUNED, Comparison, GroupAccuracy
from fopru_graph.results.methods import ModelResults
from fopru_graph.terminal.format import accuracy_text, p_text, percent, ratio_text, signed


def difference_tables(study: ModelResults, comparisons: Sequence[Comparison], against: str) -> list[Table]:
    """A table for every task: methods × ratios, differences to a reference in points with interval and p-value."""
    family = [c for c in comparisons if (c.subject.model, c.subject.against) == (study.model, against)]
    reference = "the unpruned model" if against == UNPRUNED else "random at the same ratio"
    caption = (
        f"Method − {reference} on the same samples, in points; below, the 95 % bootstrap interval and p of "
        "McNemar's exact test (two-sided, scores of at least 0.5 count as right), corrected by Holm for all "
        f"{len(family)} comparisons of this model with {reference}. ▲ and ▼: clearly higher or lower, the interval "
        "on one side of zero and p below 0.05. Intervals are drawn over pictures where questions share one; "
        "McNemar's test takes questions as independent all the same."
    )
    tables = []
    for task in study.tasks:
        compared = {(c.subject.method, c.subject.ratio): c for c in family if c.subject.task == task}
        if compared:
            ratios = sorted({ratio for _, ratio in compared}, key=lambda ratio: -2.0 if ratio is None else -ratio)
            rows = [
                (Entry(method), *(_difference(compared.get((method, ratio))) for ratio in ratios))
                for method in dict.fromkeys(method for method, _ in compared)
            ]
            title = f"{study.model} on {task}: differences to {reference}"
            columns = ("Method", *map(ratio_text, ratios))
            records = [_record(comparison) for comparison in compared.values()]
            tables.append(Table(f"paired-{against}-{task}", title, caption, columns, [rows], records, heads=1))
    return tables


def _difference(comparison: Comparison | None) -> Entry:
    if comparison is None:
        return NO_ENTRY
    note = f"[{signed(comparison.low)}, {signed(comparison.high)}]\np {p_text(comparison.p_holm)}"
    return Entry(signed(comparison.difference), note=note, sign=comparison.sign)


def _record(comparison: Comparison) -> dict[str, Any]:
    return asdict(comparison.subject) | {key: value for key, value in vars(comparison).items() if key != "subject"}


def split_table(study: ModelResults, task: str, splits: Sequence[GroupAccuracy]) -> Table | None:
    """Accuracies on the samples that the downsampled model gets wrong and right; None where it was not run."""
    of_task = [split for split in splits if split.task == task]
    blocks = []
    for ratio in study.main_ratios:
        if block := [split for split in of_task if split.ratio == ratio]:
            bold = best([None if split.method == UNPRUNED else split.hard for split in block])
            blocks.append([_split_row(split, is_best) for split, is_best in zip(block, bold, strict=True)])
    if not blocks:
        return None
    caption = (
        "After VTC-Bench: group A are the samples that the same model gets wrong on a picture made smaller to the "
        "same share of tokens, B those it gets right. What a method adds to making the picture smaller shows on A; "
        "the best method on A is bold. Samples of A were chosen for an error of the downsampled model, so others "
        "gain there by chance too. All ratios are in the CSV."
    )
    title = f"{study.model} on {task}: groups A (downsampled wrong) and B (right), %"
    columns = ("Ratio", "Method", "A", "n of A", "B", "n of B")
    records = [{"model": study.model} | asdict(split) for split in of_task]
    return Table(f"groups-{task}", title, caption, columns, blocks, records)


def _split_row(split: GroupAccuracy, bold: bool) -> Row:
    return (
        *(Entry(percent(split.ratio)), Entry(split.method)),
        *(Entry(accuracy_text(split.hard), bold), Entry(str(split.n_hard))),
        *(Entry(accuracy_text(split.easy)), Entry(str(split.n_easy))),
    )
