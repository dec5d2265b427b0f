"""Cells are ordered for comparison: by model, task and method, with measured shares and the right references."""

from __future__ import annotations

from pathlib import Path

import pytest

from fopru_graph.results.methods import ModelResults, Role, one_line, results_by_model
from fopru_graph.results.reading import read_results
from tests.report.page.fake_results import write_cell


def studied(folder: Path) -> list[ModelResults]:
    return results_by_model(read_results(folder).cells)


def test_methods_come_in_the_order_of_the_house_and_references_last(study: ModelResults) -> None:
    labels = [method.label for method in study.methods]
    assert labels[:4] == ["fopru_rank", "fopru_row", "fopru_fastv", "fastv"]
    assert {method.label: method.role for method in study.methods[-3:]} == {
        "blind": Role.BLIND,
        "downsample": Role.DOWNSAMPLE,
        "random": Role.RANDOM,
    }
    assert "baseline" not in labels and study.unpruned["scenes"].cell.identity.pipeline == "baseline"


def test_ratios_and_main_ratios(study: ModelResults, tmp_path: Path) -> None:
    assert study.ratios == (0.5, 0.25, 0.0625) and study.main_ratios == (0.5, 0.25)
    for ratio in (0.9, 0.7, 0.4, 0.3, 0.1):
        write_cell(tmp_path, "fastv", "scenes", ratio, 0.5, 100, samples=8)
    (other,) = studied(tmp_path)
    assert other.main_ratios == (0.9, 0.4, 0.1)


def test_shares_are_measured_against_what_the_unpruned_model_encodes(study: ModelResults) -> None:
    """Downsampling encodes fewer tokens and keeps all of them: that is pruning all the same."""
    downsample = study.of(Role.DOWNSAMPLE)
    assert downsample is not None
    point = downsample.points["scenes"][0.25]
    assert next(iter(point.cell.samples.values())).encoded == 64 and point.share == 0.25


def test_without_the_unpruned_model_another_method_knows_how_many_tokens_a_picture_has(tmp_path: Path) -> None:
    write_cell(tmp_path, "downsample", "scenes", 0.25, 0.5, 64, samples=8)
    write_cell(tmp_path, "fopru_rank", "scenes", 0.5, 0.8, 128, samples=6)
    (study,) = studied(tmp_path)
    downsample = study.of(Role.DOWNSAMPLE)
    assert downsample is not None and not study.unpruned
    assert downsample.points["scenes"][0.25].share == pytest.approx((6 * 64 / 256 + 2 * 1) / 8)


def test_adaptive_methods_have_percentiles(study: ModelResults) -> None:
    prumerge = next(method for method in study.methods if method.label == "prumerge")
    point = prumerge.points["scenes"][None]
    shares = sorted(sample.final / 256 for sample in point.cell.samples.values())
    assert point.low is not None and point.share is not None and point.high is not None
    assert shares[0] < point.low < point.share < point.high < shares[-1]


def test_a_failed_cell_has_no_share(study: ModelResults) -> None:
    failed = next(method for method in study.methods if method.label == "prumerge_plus").points["textvqa"][None]
    assert failed.share is None and failed.accuracy is None and failed.cell.failed


def test_a_method_that_drops_nothing_at_ratio_1_stands_in_for_a_missing_baseline(tmp_path: Path) -> None:
    write_cell(tmp_path, "fopru_rank", "scenes", 1.0, 0.9, 256, samples=8, prunes=False)
    write_cell(tmp_path, "fopru_rank", "scenes", 0.5, 0.8, 128, samples=8)
    (study,) = studied(tmp_path)
    assert study.unpruned["scenes"].cell.identity.ratio == 1.0
    assert set(study.methods[0].points["scenes"]) == {1.0, 0.5}


def test_settings_that_differ_are_in_the_name(tmp_path: Path) -> None:
    for layer, ratio in ((2, 0.5), (5, 0.25)):
        settings = {"fastv.layer": layer, "model": "demo"}
        write_cell(tmp_path, "fastv", "scenes", ratio, 0.8, 128, samples=8, settings=settings)
    (study,) = studied(tmp_path)
    assert [method.label for method in study.methods] == ["fastv (fastv.layer=2)", "fastv (fastv.layer=5)"]


def test_cells_that_differ_in_nothing_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, "fastv", "scenes", 0.5, 0.8, 128, samples=8)
    write_cell(tmp_path / "other", "fastv", "scenes", 0.5, 0.2, 128, samples=8).rename(tmp_path / f"{cell.name}--copy")
    (study,) = studied(tmp_path)
    assert [method.label for method in study.methods] == ["fastv", "fastv [fastv--scenes--r0.5--copy]"]


def test_other_data_is_another_task(tmp_path: Path) -> None:
    write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, samples=8, prunes=False)
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.8, 128, samples=8, data={"source": "x", "fingerprint": "0" * 64})
    (study,) = studied(tmp_path)
    assert study.tasks == ("scenes (exact@1, data 00000000)", "scenes (exact@1, data ffffffff)")
    assert list(study.unpruned) == ["scenes (exact@1, data ffffffff)"]


def test_every_model_is_a_study_of_its_own(tmp_path: Path) -> None:
    for model in ("b", "a"):
        write_cell(tmp_path / model, "fastv", "scenes", 0.5, 0.8, 128, samples=8, model=model)
        next((tmp_path / model).iterdir()).rename(tmp_path / f"fastv--scenes--r0.5--{model}")
        (tmp_path / model).rmdir()
    assert [study.model for study in studied(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(("text", "line"), [("a\nb\tc", "a b c"), ("a\u202eb\x00", "a b "), ("x" * 70, "x" * 59 + "…")])
def test_names_are_one_printable_line(text: str, line: str) -> None:
    assert one_line(text) == line
