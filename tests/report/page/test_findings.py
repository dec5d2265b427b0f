"""The findings name the best method, whoever it is, and every loss; pairs are of the same samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from fopru_graph.report.page.findings import best_table, failures, losses, references
from fopru_graph.results.comparisons import Comparison, compare, paired_scores
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import read_results
from fopru_graph.results.statistics import holm, mcnemar, paired_difference
from tests.report.page.fake_results import write_cell


@pytest.fixture
def losing(tmp_path: Path) -> ModelResults:
    """FastV below random, downsample and blind at a quarter, better than all of them at a half."""
    for pipeline, ratio, accuracy in (
        ("fastv", 0.5, 0.9),
        ("fastv", 0.25, 0.05),
        ("random", 0.5, 0.5),
        ("random", 0.25, 0.55),
        ("downsample", 0.25, 0.65),
        ("downsample", 0.5, 0.6),
    ):
        write_cell(tmp_path, pipeline, "scenes", ratio, accuracy, int(256 * ratio))
    write_cell(tmp_path, "blind", "scenes", None, 0.3, 0)
    write_cell(tmp_path, "baseline", "scenes", 1.0, 0.95, 256, prunes=False)
    (study,) = results_by_model(read_results(tmp_path).cells)
    return study


def test_losses_are_said(losing: ModelResults) -> None:
    found = list(losses(losing, compare(paired_scores(losing))))
    assert found == [
        "fastv on scenes: below random at 25 % (clearly at 25 %); below downsample at 25 %; not above blind at 25 %."
    ]


def test_losses_at_every_ratio_are_counted(tmp_path: Path) -> None:
    for ratio in (0.5, 0.25):
        write_cell(tmp_path, "fastv", "scenes", ratio, 0.2, 64)
        write_cell(tmp_path, "random", "scenes", ratio, 0.6, 64)
    (study,) = results_by_model(read_results(tmp_path).cells)
    assert list(losses(study, [])) == ["fastv on scenes: below random at all 2 ratios."]


def test_the_best_may_be_a_reference(losing: ModelResults) -> None:
    table = best_table(losing, compare(paired_scores(losing)))
    assert table is not None
    half, quarter = table.blocks[0]
    assert (half[0].text, half[1].text) == ("50 %", "fastv")
    assert (quarter[0].text, quarter[1].text, quarter[1].sign) == ("25 %", "downsample", -1)
    point = losing.methods[0].points["scenes"][0.5]
    assert point.accuracy and point.ci
    ends = f"[{100 * point.ci[0]:.2f}, {100 * point.ci[1]:.2f}]"
    assert half[1].note == f"{100 * point.accuracy:.2f} {ends}"


def test_ties_are_all_named(tmp_path: Path) -> None:
    for pipeline in ("fastv", "fopru_rank"):
        write_cell(tmp_path, pipeline, "scenes", 0.5, 2.0, 128)
    (study,) = results_by_model(read_results(tmp_path).cells)
    table = best_table(study, [])
    assert table is not None and table.blocks[0][0][1].text == "fopru_rank, fastv"


def test_what_all_and_nothing_of_the_picture_give(losing: ModelResults) -> None:
    (sentence,) = references(losing)
    assert (
        sentence.startswith("On scenes the unpruned model scores 9")
        and "without any visual token it scores" in sentence
    )


def test_failures_have_a_reason(study: ModelResults) -> None:
    assert list(failures(study)) == [
        "prumerge_plus on textvqa, as written: all 60 samples failed with: prune: out of memory"
    ]


def test_pairs_are_of_the_samples_that_both_answered(study: ModelResults) -> None:
    pairs = {(p.subject.method, p.subject.task, p.subject.ratio, p.subject.against): p for p in paired_scores(study)}
    pair = pairs["fastv", "scenes", 0.25, "unpruned"]
    cells = {cell.folder.name: cell.samples for cell in study.cells}
    ours, whole = cells["fastv--scenes--r0.25"], cells["baseline--scenes--r1"]
    assert len(pair.scores) == 58
    assert list(pair.scores) == [ours[key].score for key in whole if key in ours]
    assert list(pair.reference) == [sample.score for key, sample in whole.items() if key in ours]
    assert list(pair.pictures) == [sample.picture for key, sample in whole.items() if key in ours]


def test_what_is_compared_with_what(study: ModelResults) -> None:
    found = {(p.subject.method, p.subject.ratio, p.subject.against) for p in paired_scores(study)}
    assert ("prumerge", None, "unpruned") in found and ("prumerge", None, "random") not in found
    assert ("random", 0.25, "unpruned") in found and ("random", 0.25, "random") not in found
    assert not any(ratio == 1.0 for _, ratio, _ in found)
    assert not any(method == "prumerge_plus" for method, _, _ in found)


def test_statistics_are_those_of_the_pairs(study: ModelResults, comparisons: list[Comparison]) -> None:
    pairs = list(paired_scores(study))
    assert [c.subject for c in comparisons] == [p.subject for p in pairs]
    for pair, found in zip(pairs[:3], comparisons, strict=False):
        assert (found.difference, found.low, found.high) == paired_difference(
            pair.reference, pair.scores, pair.pictures
        )
        assert found.p == mcnemar(pair.reference, pair.scores) and found.n == len(pair.scores)
    for against in ("unpruned", "random"):
        family = [c for c in comparisons if c.subject.against == against]
        assert [c.p_holm for c in family] == holm([c.p for c in family])
