"""``fopru-graph report``: read a results folder, compare its cells, and write a page, tables and figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fopru_graph.commands.arguments import fail
from fopru_graph.errors import UserError
from fopru_graph.report.page.write import Written, write_report
from fopru_graph.results.comparisons import Comparison, compare, paired_scores
from fopru_graph.results.methods import results_by_model
from fopru_graph.results.reading import read_results
from fopru_graph.terminal.console import show_warning
from fopru_graph.terminal.stdout import stdout


def report_results(folder: Path, output: Path | None, as_json: bool) -> None:
    """Write the report of a results folder and print its path; warns of cells that cannot be used.

    Ends the program with exit code 2 if the folder has no usable cell.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        results = read_results(folder)
    except UserError as error:
        fail(2, error.message, error.hint)
    studies = results_by_model(results.cells)
    comparisons = compare(pair for study in studies for pair in paired_scores(study))
    written = write_report(results, studies, comparisons, output)
    for name, reason in written.left_out:
        show_warning(f"left out {name}: {reason}")
    if as_json:
        stdout.json(_as_json(written, len(results.cells), comparisons))
    else:
        stdout.line(str(written.page))


def _as_json(written: Written, cells: int, comparisons: list[Comparison]) -> dict[str, object]:
    return {
        "report": str(written.page),
        "files": [str(path) for path in written.files],
        "cells": cells,
        "left_out": [cell._asdict() for cell in written.left_out],
        "comparisons": [
            asdict(comparison.subject) | {key: value for key, value in vars(comparison).items() if key != "subject"}
            for comparison in comparisons
        ],
    }
