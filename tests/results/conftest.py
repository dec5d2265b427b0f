"""One invented results folder for all tests here that only read."""

from __future__ import annotations

import pytest

from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import Results, read_results
from tests.report.page.fake_results import write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(write_results(tmp_path_factory.mktemp("results"), ratios=(0.0625, 0.25, 0.5, 1.0)))


@pytest.fixture(scope="session")
def study(results: Results) -> ModelResults:
    (study,) = results_by_model(results.cells)
    return study
