"""The tables say what the cells say: best, better, missing and failed, in all four forms, whatever names contain."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.report.page.page import render
from fopru_graph.report.page.paired_tables import difference_tables, split_table
from fopru_graph.report.page.table import Entry, Table, best, better, to_csv, to_latex, to_markdown
from fopru_graph.report.page.tables import ablation_table, accuracy_table, type_table
from fopru_graph.results.comparisons import Comparison, ComparisonSubject, group_accuracies
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import read_results
from fopru_graph.terminal.format import p_text, signed
from tests.report.page.fake_results import write_cell


def records(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def row(table: Table, ratio: str, method: str) -> tuple[Entry, ...]:
    (found,) = [row for row in table.rows if (row[0].text, row[1].text) == (ratio, method)]
    return found


def small_study(folder: Path, accuracies: dict[tuple[str, float], tuple[int, int]], **more: Any) -> ModelResults:
    """Cells of two tasks with exactly so many of twenty samples right."""
    for (pipeline, ratio), counts in accuracies.items():
        for task, right in zip(("one", "two"), counts, strict=True):
            if right is not None:
                cell = write_cell(folder, pipeline, task, ratio, 1.0, int(256 * ratio), 20, prunes=ratio < 1, **more)
                force(cell, right)
    (study,) = results_by_model(read_results(folder).cells)
    return study


def force(cell: Path, right: int) -> None:
    """Make exactly ``right`` samples right."""
    import json

    rows = [json.loads(line) for line in (cell / "results.jsonl").read_text().splitlines()]
    for i, sample in enumerate(rows):
        sample["score"] = float(i < right)
    (cell / "results.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in rows))
    summary = json.loads((cell / "summary.json").read_text())
    (cell / "summary.json").write_text(json.dumps(summary | {"accuracy": right / len(rows)}))


# Best and better


def test_best_is_the_largest_of_several_as_printed() -> None:
    assert best([0.5, None, 0.7]) == [False, False, True]
    assert best([0.70001, 0.70004, 0.1]) == [True, True, False]
    assert best([0.5, None]) == [False, False]
    assert best([]) == []


def test_better_is_larger_as_printed() -> None:
    assert better(0.7001, 0.7) and not better(0.70004, 0.7) and not better(0.7, 0.7)
    assert not better(None, 0.7) and not better(0.7, None)


def test_bold_and_underline_of_every_ratio(tmp_path: Path) -> None:
    study = small_study(
        tmp_path,
        {
            ("baseline", 1.0): (16, 12),
            ("fopru_rank", 0.5): (17, 11),
            ("fastv", 0.5): (15, 13),
            ("fopru_rank", 0.25): (10, 9),
            ("fastv", 0.25): (10, None),
        },
    )
    table = accuracy_table(study)
    assert table.columns == ("Ratio", "Method", "Kept", "one", "two", "Average")
    assert row(table, "100 %", "unpruned")[3:] == (Entry("80.00"), Entry("60.00"), Entry("70.00"))
    assert row(table, "50 %", "fopru_rank")[3:] == (
        Entry("85.00", bold=True, underline=True),
        Entry("55.00"),
        Entry("70.00", bold=True),
    )
    assert row(table, "50 %", "fastv")[3:] == (
        Entry("75.00"),
        Entry("65.00", bold=True, underline=True),
        Entry("70.00", bold=True),
    )
    assert row(table, "25 %", "fopru_rank")[3:] == (Entry("50.00", bold=True), Entry("45.00"), Entry("47.50"))
    assert row(table, "25 %", "fastv")[3:] == (Entry("50.00", bold=True), Entry("–"), Entry("–"))


def test_random_is_bold_where_it_wins(tmp_path: Path) -> None:
    study = small_study(tmp_path, {("fastv", 0.5): (10, 10), ("random", 0.5): (12, 9)})
    assert row(accuracy_table(study), "50 %", "random")[3] == Entry("60.00", bold=True)


# Rows


def test_blocks_of_the_accuracy_table(study: ModelResults) -> None:
    table = accuracy_table(study)
    heads = [(block[0][0].text, [row[1].text for row in block]) for block in table.blocks]
    assert heads[:3] == [("100 %", ["unpruned"]), ("none", ["blind"]), ("as written", ["prumerge", "prumerge_plus"])]
    assert [ratio for ratio, _ in heads[3:]] == ["50 %", "25 %", "6.25 %"]
    assert row(table, "none", "blind")[2].text == "0 %" and row(table, "25 %", "downsample")[2].text == "25 %"


def test_the_layer_average_stands_beside_what_is_kept_where_it_is_another(study: ModelResults) -> None:
    table = accuracy_table(study)
    assert row(table, "25 %", "fastv")[2] == Entry("25 %", note="layer average 62.5 %")
    assert row(table, "25 %", "fopru_rank")[2] == Entry("25 %")
    record = next(record for record in table.records if (record["method"], record["ratio"]) == ("fastv", 0.25))
    assert (record["share_final"], record["share_layer_average"]) == (0.25, 0.625)


def test_failed_missing_and_errors_are_said(study: ModelResults) -> None:
    table = accuracy_table(study)
    assert row(table, "as written", "prumerge_plus")[2:] == (
        *(Entry("–"), Entry("–")),
        *(Entry("Failed", note="60 errors"), Entry("–")),
    )
    assert row(table, "25 %", "fastv")[3].note == "2 errors"


def test_methods_that_equal_the_unpruned_model_at_ratio_1_are_said_once(study: ModelResults) -> None:
    table = accuracy_table(study)
    assert "score as the unpruned model on every sample and have no row: fopru_rank, fopru_row" in table.caption


def test_a_method_that_differs_from_the_unpruned_model_at_ratio_1_has_a_row(tmp_path: Path) -> None:
    study = small_study(tmp_path, {("baseline", 1.0): (10, 10), ("fastv", 1.0): (10, 11), ("fastv", 0.5): (9, 9)})
    assert row(accuracy_table(study), "100 %", "fastv")[4] == Entry("55.00", underline=True)


def test_fewer_samples_are_said(tmp_path: Path) -> None:
    write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, 20, prunes=False)
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.9, 128, 12)
    (study,) = results_by_model(read_results(tmp_path).cells)
    assert row(accuracy_table(study), "50 %", "fastv")[3].note == "n = 12"


def test_records_are_unrounded_and_complete(study: ModelResults) -> None:
    rows = records(accuracy_table(study))
    assert len(rows) == sum(1 for _ in study.cells)
    (record,) = [r for r in rows if (r["method"], r["task"], r["ratio"]) == ("fopru_rank", "scenes", "0.25")]
    cell = next(c for c in study.cells if c.folder.name == "fopru_rank--scenes--r0.25")
    assert float(record["accuracy"]) == cell.summary.accuracy and float(record["share_final"]) == 0.25
    unpruned = study.unpruned["scenes"].accuracy
    assert unpruned and float(record["relative_accuracy"]) == pytest.approx((cell.summary.accuracy or 0) / unpruned)
    (failed,) = [r for r in rows if r["method"] == "prumerge_plus"]
    assert (failed["accuracy"], failed["n"], failed["errors"]) == ("", "0", "60")


def test_types_are_a_heat_table(study: ModelResults) -> None:
    table = type_table(study, "scenes")
    assert table is not None and type_table(study, "textvqa") is None
    assert table.columns[2:] == ("colour (n = 20)", "counting (n = 20)", "reading (n = 20)")
    heats = [entry.heat for entries in table.rows for entry in entries[2:] if entry.heat is not None]
    assert min(heats) == 0 and max(heats) == 1
    assert {"0.0625", "0.25", "0.5", ""} <= {record["ratio"] for record in records(table)}


def test_ablation_as_in_the_paper(study: ModelResults, tmp_path: Path) -> None:
    table = ablation_table(study)
    assert table is not None
    assert [entries[1].text for entries in table.blocks[2]] == [
        "w/o Variance",
        "w/o Significance",
        "w/o Reordering",
        "FoPru",
    ]
    assert table.blocks[2][-1][3:] == row(table, "25 %", "FoPru")[3:]
    without = small_study(tmp_path, {("baseline", 1.0): (9, 9), ("fopru_rank", 0.5): (9, 9)})
    assert ablation_table(without) is None


# Comparisons


def comparison(difference: float, p: float, low: float, high: float) -> Comparison:
    subject = ComparisonSubject("demo", "scenes", "fastv", 0.25, "unpruned")
    return Comparison(subject, 60, difference, low, high, p, p)


def test_clear_needs_both_the_interval_and_p() -> None:
    assert comparison(-0.1, 0.01, -0.2, -0.05).sign == -1 and comparison(0.1, 0.01, 0.05, 0.2).sign == 1
    assert comparison(-0.1, 0.05, -0.2, -0.05).sign == 0 and comparison(-0.1, 0.01, -0.2, 0.0).sign == 0


def test_differences_stand_at_their_method_and_ratio(study: ModelResults) -> None:
    (table,) = difference_tables(study, [comparison(-0.1234, 0.0004, -0.2, -0.05)], "unpruned")
    assert table.columns == ("Method", "25 %") and table.heads == 1
    assert table.blocks[0][0] == (Entry("fastv"), Entry("−12.3", note="[−20.0, −5.0]\np < 0.001", sign=-1))
    assert "Holm for all 1 comparisons" in table.caption
    assert records(table)[0]["difference"] == "-0.1234"
    assert difference_tables(study, [], "unpruned") == []


def test_figures_of_differences() -> None:
    assert (signed(0.1), signed(-0.0004), signed(0.0), signed(-0.1)) == ("+10.0", "0.0", "0.0", "−10.0")
    assert (p_text(0.0009), p_text(0.001), p_text(1.0)) == ("< 0.001", "0.001", "1.000")


def test_groups_of_vtc_bench(study: ModelResults) -> None:
    table = split_table(study, "scenes", group_accuracies(study))
    assert table is not None
    judge = next(c for c in study.cells if c.folder.name == "downsample--scenes--r0.25").samples
    other = next(c for c in study.cells if c.folder.name == "fopru_rank--scenes--r0.25").samples
    hard = [other[key].score for key in judge if judge[key].score == 0]
    easy = [other[key].score for key in judge if judge[key].score == 1]
    (record,) = [r for r in records(table) if (r["method"], r["ratio"]) == ("fopru_rank", "0.25")]
    assert (int(record["n_hard"]), int(record["n_easy"])) == (len(hard), len(easy)) and hard
    assert float(record["hard"]) == pytest.approx(sum(hard) / len(hard))
    assert float(record["easy"]) == pytest.approx(sum(easy) / len(easy))
    assert not any(entries[1].text == "unpruned" and entries[2].bold for entries in table.rows)
    assert {"unpruned", "blind", "random"} <= {entries[1].text for entries in table.rows}


# Forms

HOSTILE = "<script>alert('x')</script>|*_`$&%#{}\\~^[=1]"


@pytest.fixture
def table() -> Table:
    cells = (Entry(HOSTILE), Entry("1.50", bold=True, underline=True, note="2 errors"), Entry("−3.0", sign=-1))
    figures = ({"name": HOSTILE, "value": 1.23456789}, {"name": "=cmd()", "value": None})
    return Table("t", "Title_1", "50 % of <all>", ("a|b", "c", "d"), ((cells,), (cells,)), figures, heads=1)


def test_html_escapes_and_marks(table: Table) -> None:
    text = render(table.template, block=table)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "<u><strong>1.50</strong></u><small>2 errors</small>" in text
    assert '<td class="lower">−3.0 <span title="clearly lower" class="sign">▼</span></td>' in text
    assert text.count("<tbody>") == 2 and "<caption>Title_1</caption>" in text


def test_markdown_escapes_and_marks(table: Table) -> None:
    lines = to_markdown(table).splitlines()
    assert lines[2:4] == [r"| a\|b | c | d |", "|---|---:|---:|"]
    assert "<script" not in lines[4] and r"\|\*\_\`$&amp;%\#{}\\~^\[=1\]" in lines[4]
    assert "<u>**1.50**</u> (2 errors)" in lines[4] and "−3.0 ▼" in lines[4]


def test_latex_escapes_and_marks(table: Table) -> None:
    text = to_latex(table)
    assert r"\textless{}script\textgreater{}" in text and r"\$\&\%\#\{\}\textbackslash{}\textasciitilde{}" in text
    assert r"\underline{\textbf{1.50}} {\scriptsize (2 errors)}" in text and r"$-$3.0 $\downarrow$" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrr}" and body.count(r"\midrule") == 2 and body[-1] == r"\end{tabular}"
    assert all(line.count(" & ") == 2 for line in body if line.endswith(r"\\"))


def test_csv_is_unrounded_and_inert(table: Table) -> None:
    lines = to_csv(table).splitlines()
    assert lines[0] == "name,value" and lines[1].endswith(",1.23456789") and lines[2] == "'=cmd(),"
