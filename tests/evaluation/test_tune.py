"""Tuning finds the smallest ratio that is good enough, says how sure it is, and measures no more than it must."""

from __future__ import annotations

import json

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.tune import PAPER_RATIOS, Drop, drop_between, find_smallest_ratio

RATIOS = (0.1, 0.2, 0.3, 0.5, 1.0)


def drops(values, width=0.2):
    """A measurement with a known drop at every ratio; remembers what it was asked for."""
    asked = []

    def measure(ratio):
        asked.append(ratio)
        drop = values[ratio]
        return Drop(ratio, 90 - drop, drop, drop - width, drop + width, 100)

    return measure, asked


@pytest.mark.parametrize("smallest", RATIOS)
def test_the_smallest_ratio_within_the_drop_is_found(smallest):
    values = {ratio: 0.5 if ratio >= smallest else 5.0 for ratio in RATIOS}
    measure, asked = drops(values)
    tuned = find_smallest_ratio("fopru", "pope", RATIOS, 1.0, measure)
    assert tuned.ratio == tuned.sure == smallest
    assert len(asked) == len(set(asked)) <= 4  # bisection, and nothing twice
    assert f"fopru at {100 * smallest:.3g} % costs 0.50 points on pope" in tuned.statement()
    assert "with 95 % confidence" in tuned.statement()


def test_confidence_may_take_more_tokens():
    values = {0.1: 4.0, 0.2: 0.9, 0.3: 0.6, 0.5: 0.1, 1.0: 0.0}
    tuned = find_smallest_ratio("fopru", "pope", RATIOS, 1.0, drops(values, width=0.5)[0])
    assert (tuned.ratio, tuned.sure) == (0.2, 0.5)
    assert tuned.statement().endswith("with 95 % confidence it takes 50 %")


def test_too_few_samples_for_any_confidence():
    tuned = find_smallest_ratio("fopru", "pope", RATIOS, 1.0, drops(dict.fromkeys(RATIOS, 0.0), width=3)[0])
    assert (tuned.ratio, tuned.sure) == (0.1, None)
    assert "more samples would tell" in tuned.statement()


def test_nothing_is_good_enough():
    tuned = find_smallest_ratio("fopru", "pope", (0.1, 0.5), 1.0, drops({0.1: 9.0, 0.5: 3.0})[0])
    assert tuned.ratio is None and tuned.sure is None and tuned.chosen is None
    assert tuned.statement().startswith("no ratio that was tried")
    assert [drop.ratio for drop in tuned.drops] == [0.5]


def test_a_measured_exception_to_the_rule_counts():
    """0.3 fails though 0.2, which bisection met before, is within the drop."""
    values = {0.1: 9.0, 0.2: 0.5, 0.3: 0.4, 0.5: 0.3, 1.0: 0.0}
    assert find_smallest_ratio("fopru", "pope", RATIOS, 0.6, drops(values)[0]).ratio == 0.2


@pytest.mark.parametrize(("ratios", "drop"), [((), 1.0), ((0.5,), -1.0)])
def test_what_makes_no_sense_is_refused(ratios, drop):
    with pytest.raises(UserError):
        find_smallest_ratio("fopru", "pope", ratios, drop, drops({0.5: 0})[0])


def test_the_papers_ratios_keep_the_papers_counts_of_576():
    assert [int(576 * ratio + 1e-6) for ratio in PAPER_RATIOS] == [1, 16, 36, 64, 100, 144, 288, 432, 576]


def write(folder, scores):
    folder.mkdir()
    rows = [
        {"id": str(key), "picture": f"p{key}", "status": "error" if score is None else "ok", "score": score}
        for key, score in scores.items()
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_drop_is_taken_over_the_samples_that_both_answered(tmp_path):
    whole = write(tmp_path / "whole", {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.0, 4: 1.0, 5: None})
    pruned = write(tmp_path / "pruned", {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0, 4: None, 5: 1.0})
    drop = drop_between(whole, pruned, 0.25)
    assert (drop.ratio, drop.accuracy, drop.drop, drop.n) == (0.25, 50.0, 25.0, 4)
    assert drop.low <= 25.0 <= drop.high
    same = drop_between(whole, whole, 1.0)
    assert same.drop == 0 and same.high > 20  # five samples without a difference prove little
    with pytest.raises(UserError, match="no answered sample in common"):
        drop_between(whole, write(tmp_path / "none", {4: None}), 0.25)
