"""One invented results folder and its report for all tests here; those that change anything make their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fopru_graph.report.page.write import Written, write_report
from fopru_graph.results.comparisons import Comparison, compare, paired_scores
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import Results, read_results
from tests.report.page.fake_results import write_attention, write_results

RATIOS = (0.0625, 0.25, 0.5, 1.0)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = write_results(tmp_path_factory.mktemp("results"), ratios=RATIOS)
    write_attention(folder / "baseline--scenes--r1")
    return read_results(folder)


@pytest.fixture(scope="session")
def study(results: Results) -> ModelResults:
    (study,) = results_by_model(results.cells)
    return study


@pytest.fixture(scope="session")
def comparisons(study: ModelResults) -> list[Comparison]:
    return compare(paired_scores(study))


@pytest.fixture(scope="session")
def written(results: Results, study: ModelResults, comparisons: list[Comparison]) -> Written:
    return write_report(results, [study], comparisons)


@pytest.fixture(scope="session")
def page(written: Written) -> str:
    return Path(written.page).read_text(encoding="utf-8")
