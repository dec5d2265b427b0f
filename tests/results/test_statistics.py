"""Intervals and paired tests agree with scipy, cover what they promise, and count pictures that questions share."""

from __future__ import annotations

import numpy as np
import pytest

from fopru_graph.results.statistics import agresti_min, holm, interval, mcnemar, paired_difference, t_quantile, wilson

# From scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson"), version 1.17.1
WILSON = {
    (0, 10): (0, 0.2775328),
    (5, 10): (0.23659309, 0.76340691),
    (10, 10): (0.72246721, 1.0),
    (170, 200): (0.79394421, 0.89286406),
    (1, 1534): (0.00011508395, 0.0036833953),
}


def draw(clusters: int, size: int, shared: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of questions about pictures; with probability ``shared`` a question has its picture's own result."""
    rng = np.random.default_rng(seed)
    own = rng.random((clusters, size)) < 0.5
    picture = rng.random((clusters, 1)) < 0.5
    scores = np.where(rng.random((clusters, size)) < shared, picture, own).astype(float)
    return scores.ravel(), np.repeat(np.arange(clusters), size)


# Wilson


@pytest.mark.parametrize(("successes", "n"), WILSON)
def test_wilson_equals_known_intervals(successes: int, n: int) -> None:
    assert wilson(successes / n, n) == pytest.approx(WILSON[successes, n], abs=1e-8)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 7, 100, 9000):
        for successes in {0, n // 3, n // 2, n}:
            expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
            assert wilson(successes / n, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        wilson(0.5, 0)


# Intervals


def test_binary_scores_get_wilson_and_others_a_bootstrap() -> None:
    scores = [1.0] * 85 + [0.0] * 15
    assert interval(scores) == wilson(0.85, 100)
    graded = [0.3, 0.6, 0.9, 1.0] * 25
    low, high = interval(graded)
    deviation = np.std(graded) / 10
    assert low == pytest.approx(0.7 - 1.96 * deviation, abs=0.01) and high == pytest.approx(
        0.7 + 1.96 * deviation, abs=0.01
    )
    assert interval(graded) == (low, high)


def test_pictures_asked_about_once_change_nothing() -> None:
    scores, graded = [1.0, 0.0, 1.0, 1.0], [0.25, 0.5, 1.0, 0.75]
    assert interval(scores, ["a", "b", "c", "d"]) == interval(scores)
    assert interval(graded, ["a", "b", "c", "d"]) == interval(graded)


def test_questions_that_repeat_a_picture_count_once() -> None:
    """Four times the same answer about a picture says as much as one."""
    scores, groups = draw(200, 4, shared=1.0)
    low, high = interval(scores, groups)
    once = interval(scores[::4])
    assert (low, high) == pytest.approx(once, abs=2e-3)
    assert high - low > 1.8 * np.diff(interval(scores))[0]


def test_independent_questions_of_a_picture_count_all() -> None:
    scores, groups = draw(2000, 4, shared=0.0)
    assert np.diff(interval(scores, groups)) == pytest.approx(np.diff(interval(scores)), rel=0.06)


def test_a_group_is_never_worth_more_than_its_samples() -> None:
    """Each picture has one right and one wrong answer: no variance between pictures, yet no false certainty."""
    found = interval([1.0, 0.0] * 50, np.repeat(np.arange(50), 2))
    assert found == wilson(0.5, 100 * (t_quantile(99) / t_quantile(49)) ** 2)


def test_perfect_scores_count_pictures() -> None:
    found = interval([1.0] * 40, np.repeat(np.arange(10), 4))
    assert found == wilson(1.0, 10 * (t_quantile(39) / t_quantile(9)) ** 2)


def test_one_picture_is_one_sample() -> None:
    assert interval([1.0, 1.0, 0.0, 1.0], ["a"] * 4) == wilson(0.75, 1)


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_intervals_cover_the_truth_as_often_as_they_say(shared: float) -> None:
    hits = [low <= 0.5 <= high for low, high in (interval(*draw(60, 5, shared, seed)) for seed in range(400))]
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("pictures", [5, 10])
@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
def test_few_pictures_do_not_narrow_the_interval(pictures: int, shared: float) -> None:
    drawn = (draw(pictures, 5, shared, seed) for seed in range(1000))
    hits = [low <= 0.5 <= high for low, high in (interval(*sample) for sample in drawn)]
    assert np.mean(hits) >= 0.94


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (1000, 1.96234)])
def test_students_t_equals_known_quantiles(freedom: int, t: float) -> None:
    assert t_quantile(freedom) == pytest.approx(t, abs=1e-4)


def test_students_t_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 5, 38, 39, 1533, 20001):
        for level in (0.8, 0.95, 0.99):
            assert t_quantile(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_graded_scores_cluster_too() -> None:
    scores, groups = draw(150, 4, shared=1.0)
    graded = 0.1 + 0.8 * scores
    assert np.diff(interval(graded, groups)) == pytest.approx(np.diff(interval(graded[::4])), rel=0.08)


def test_bootstrap_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(3).choice([0.0, 0.3, 0.6, 0.9, 1.0], 500)
    found = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))
    expected = found.confidence_interval
    assert interval(scores) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="none"):
        interval([])
    with pytest.raises(ValueError, match="2 groups do not fit 3 scores"):
        interval([1, 0, 1], ["a", "b"])


# Paired differences


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(400) < 0.6).astype(float)
    b = a.copy()
    b[:8] = 1 - b[:8]
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(np.mean(b) - np.mean(a))
    assert low <= difference <= high and high - low < 0.03


def test_the_sign_is_that_of_the_second() -> None:
    worse, low, high = paired_difference([1.0] * 30, [0.0] * 20 + [1.0] * 10)
    assert worse == pytest.approx(-2 / 3) and low < worse < high < 0


def test_equal_scores_differ_by_nothing() -> None:
    assert paired_difference([0.0, 1.0, 0.5], [0.0, 1.0, 0.5]) == (0.0, 0.0, 0.0)


def test_pairs_of_one_picture_are_drawn_together() -> None:
    scores, groups = draw(150, 4, shared=1.0)
    zeros = np.zeros(len(scores))
    _, low, high = paired_difference(zeros, scores, groups)
    _, narrow_low, narrow_high = paired_difference(zeros, scores)
    assert high - low > 1.7 * (narrow_high - narrow_low)


def test_unequal_pictures_weigh_by_their_questions() -> None:
    difference, low, high = paired_difference([0.0] * 4, [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert difference == 0.75 and (low, high) == (0.0, 1.0)


def test_pairs_must_match() -> None:
    for test in (paired_difference, mcnemar):
        with pytest.raises(ValueError, match="not 2 and 1"):
            test([1.0, 0.0], [1.0])


# McNemar and Holm


def pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[float], list[float]]:
    counts = ((1, 1, both), (1, 0, only_a), (0, 1, only_b), (0, 0, neither))
    return [a for a, _, k in counts for _ in range(k)], [b for _, b, k in counts for _ in range(k)]


def test_agresti_min_by_hand_and_with_a_width_where_nothing_differs():
    """10 pairs, 3 won and 1 lost: (3.5 − 1.5) / 12 ± 1.96 · √((5 / 12 − (1 / 6)²) / 12)."""
    low, high = agresti_min([0] * 3 + [1] + [1] * 6, [1] * 3 + [0] + [1] * 6)
    half = 1.959964 * ((5 / 12 - 1 / 36) / 12) ** 0.5
    assert (low, high) == pytest.approx((1 / 6 - half, 1 / 6 + half), abs=1e-6)
    few, many = agresti_min([1] * 5, [1] * 5), agresti_min([1] * 5000, [1] * 5000)
    assert few[0] < -0.2 and few[1] > 0.2 and many == pytest.approx((0, 0), abs=1e-3)
    with pytest.raises(ValueError, match="as many scores"):
        agresti_min([1], [1, 0])


def test_mcnemar_of_known_tables() -> None:
    assert mcnemar(*pair(50, 0, 0, 3)) == 1.0
    assert mcnemar(*pair(1, 5, 5, 1)) == 1.0
    assert mcnemar(*pair(0, 1, 9, 0)) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(*pair(7, 9, 1, 5)) == pytest.approx(2 * 11 / 1024)
    assert 0 <= mcnemar(*pair(0, 9000, 0, 0)) < 1e-300


def test_mcnemar_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for only_a, only_b in ((3, 8), (40, 61), (700, 811), (0, 6)):
        expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(*pair(4, only_a, only_b, 4)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_halves_graded_scores() -> None:
    assert mcnemar([0.5, 0.6, 0.9], [0.49, 0.3, 0.0]) == mcnemar([1, 1, 1], [0, 0, 0])


def test_holm_equals_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
