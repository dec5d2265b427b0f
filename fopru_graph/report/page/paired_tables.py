"""Tables of what was compared sample by sample: differences with their tests, and the groups of VTC-Bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fopru_graph.report.page.table import Entry, Row, Table, best
from fopru_graph.report.page.tables import points_text
from fopru_graph.results.comparisons import UNPRUNED, Comparison, GroupAccuracy
from fopru_graph.results.methods import ModelResults
from fopru_graph.terminal.console import percent


def difference_tables(study: ModelResults, comparisons: Sequence[Comparison], against: str) -> list[Table]:
    """A table for every task: methods × ratios, differences to a reference in points with interval and p."""
    own = [c for c in comparisons if (c.subject.model, c.subject.against) == (study.model, against)]
    tables = []
    for task in study.tasks:
        found = [c for c in own if c.subject.task == task]
        if not found:
            continue
        ratios = sorted({c.subject.ratio for c in found}, key=lambda ratio: -2.0 if ratio is None else -ratio)
        by_place = {(c.subject.method, c.subject.ratio): c for c in found}
        methods = dict.fromkeys(c.subject.method for c in found)
        rows = tuple(
            (Entry(method), *(_difference(by_place.get((method, ratio))) for ratio in ratios)) for method in methods
        )
        columns = ("Method", *("as written" if ratio is None else percent(ratio) for ratio in ratios))
        reference = "the unpruned model" if against == UNPRUNED else "random at the same ratio"
        caption = (
            f"Method − {reference} on the same samples, in points; below, the 95 % bootstrap interval and p of "
            "McNemar's exact test (two-sided, scores of at least 0.5 count as right), corrected by Holm for all "
            f"{len(own)} comparisons of this model with {reference}. ▲ and ▼: clearly higher or lower, the interval "
            "on one side of zero and p below 0.05. Intervals are drawn over pictures where questions share one; "
            "McNemar's test takes questions as independent all the same."
        )
        title = f"{study.model} on {task}: differences to {reference}"
        name = f"paired-{against}-{task}"
        tables.append(Table(name, title, caption, columns, (rows,), tuple(map(_record, found)), heads=1))
    return tables


def _difference(found: Comparison | None) -> Entry:
    if found is None:
        return Entry("–")
    note = f"[{signed(found.low)}, {signed(found.high)}]\np {p_text(found.p_holm)}"
    return Entry(signed(found.difference), note=note, sign=found.sign)


def signed(share: float) -> str:
    """A difference of shares in points with one decimal and its sign."""
    text = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def p_text(p: float) -> str:
    """A p value with three decimals, or what it is smaller than."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _record(found: Comparison) -> dict[str, Any]:
    return asdict(found.subject) | {key: value for key, value in vars(found).items() if key != "subject"}


def split_table(study: ModelResults, task: str, splits: Sequence[GroupAccuracy]) -> Table | None:
    """Accuracies on the samples that the downsampled model gets wrong and right; None where it was not run."""
    own = [split for split in splits if split.task == task]
    shown = [split for split in own if split.ratio in study.main_ratios]
    if not shown:
        return None
    blocks = []
    for ratio in study.main_ratios:
        block = [split for split in shown if split.ratio == ratio]
        bold = best([None if split.method == UNPRUNED else split.hard for split in block])
        blocks.append(tuple(_split_row(split, mark) for split, mark in zip(block, bold, strict=True)))
    caption = (
        "After VTC-Bench: group A are the samples that the same model gets wrong on a picture made smaller to the "
        "same share of tokens, B those it gets right. What a method adds to making the picture smaller shows on A; "
        "the best method on A is bold. Samples of A were chosen for an error of the downsampled model, so others "
        "gain there by chance too. All ratios are in the CSV."
    )
    title = f"{study.model} on {task}: groups A (downsampled wrong) and B (right), %"
    columns = ("Ratio", "Method", "A", "n of A", "B", "n of B")
    records = tuple({"model": study.model} | asdict(split) for split in own)
    return Table(f"groups-{task}", title, caption, columns, tuple(filter(None, blocks)), records)


def _split_row(split: GroupAccuracy, bold: bool) -> Row:
    return (
        *(Entry(percent(split.ratio)), Entry(split.method)),
        *(Entry(points_text(split.hard), bold), Entry(str(split.n_hard))),
        *(Entry(points_text(split.easy)), Entry(str(split.n_easy))),
    )
