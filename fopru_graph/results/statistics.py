"""How certain accuracies, their differences, times and gains are: intervals, paired tests, percentiles.

Questions about the same picture are not independent: what is hard to see is hard for all of them. Where ``groups``
names each sample's picture, the bootstrap draws whole pictures, and Wilson's interval takes the effective number of
samples. Without ``groups``, or where there is one question a picture, samples are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from fopru_graph.results.bench import Gain
from fopru_graph.results.schema import Timing

RESAMPLES = 4000
ROUND_RESAMPLES = 2000
LEVEL = 0.95

Floats = npt.NDArray[np.float64]
Scores = Sequence[float] | npt.NDArray[Any]
Groups = Sequence[Hashable] | npt.NDArray[Any]


def wilson(mean: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion; it stays within [0, 1] and has a width at 0 and 1 too.

    Args:
        mean: share of successes, in [0, 1].
        n: number of samples; an effective number need not be whole.
        level: share of such intervals that hold the true proportion.

    Raises:
        ValueError: ``n`` is not positive.
    """
    if n <= 0:
        raise ValueError(f"an interval needs samples, n is {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    # Rounding must not move an end past the mean, which it equals at 0 and at 1.
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t that Student's distribution exceeds on neither side with probability ``level``.

    By bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).

    Args:
        freedom: degrees of freedom, at least 1.
        level: probability of [−t, t].
    """
    odd = freedom % 2
    steps = np.arange(1, (freedom - odd) // 2)
    factors = (2 * steps - 1 + odd) / (2 * steps + odd)
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / √freedom
    for _ in range(60):
        angle = (low + high) / 2
        cos = math.cos(angle)
        share = math.sin(angle) * (1 + float(np.cumprod(factors * cos * cos).sum())) * (cos if odd else 1)
        if odd:
            share = 2 / math.pi * (angle + (share if freedom > 1 else 0))
        low, high = (angle, high) if share < level else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def interval(scores: Scores, groups: Groups | None = None) -> tuple[float, float]:
    """The 95 % interval of a mean score in [0, 1].

    Scores of 0 and 1 get Wilson's interval; where pictures repeat, with the effective number of samples of Korn and
    Graubard (1998), as in surveys. Graded scores get a percentile bootstrap with a fixed seed, over pictures where
    ``groups`` names them.

    Raises:
        ValueError: there is no score, or not one group a score.
    """
    values = np.asarray(scores, dtype=np.float64)
    sums, counts = _clusters(values, groups)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(float(values.mean()), _effective(values, sums, counts))
    return _bootstrap(sums, counts)


def paired_difference(a: Scores, b: Scores, groups: Groups | None = None) -> tuple[float, float, float]:
    """Mean of ``b − a`` over the same samples, and its 95 % interval: a percentile bootstrap with a fixed seed.

    The interval has no width where no two scores differ, or all by the same.

    Raises:
        ValueError: there is no pair, or the lengths differ.
    """
    first, second = _paired(a, b)
    difference = second - first
    return float(difference.mean()), *_bootstrap(*_clusters(difference, groups))


def agresti_min(a: Scores, b: Scores) -> tuple[float, float]:
    """The 95 % interval of the mean of ``b − a`` for paired scores of 0 and 1, by Agresti and Min (2005).

    Half a sample is added to each cell of the 2 × 2 table before Wald's formula. Unlike a bootstrap interval it keeps a
    width where few samples differ or none. Samples are taken as independent, also where they share a picture.

    Raises:
        ValueError: the lengths differ.
    """
    only_first, only_second = _discordant(a, b)
    won, lost, n = only_second + 0.5, only_first + 0.5, len(a) + 2
    mean = (won - lost) / n
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt((won + lost) / n - mean * mean) / math.sqrt(n)
    return mean - half, mean + half


def mcnemar(a: Scores, b: Scores) -> float:
    """Two-sided p of McNemar's exact test: are as many samples right only in ``a`` as only in ``b``?

    A score of at least 0.5 counts as right. If only chance decides, the discordant samples follow a binomial
    distribution of ½; p is twice its smaller tail, at most 1. Samples are taken as independent, also where they share a
    picture.

    Raises:
        ValueError: the lengths differ.
    """
    only_first, only_second = _discordant(a, b)
    n, fewer = only_first + only_second, min(only_first, only_second)
    term = tail = 1  # binomial coefficients as whole numbers: exact however many samples there are
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return float(min(1.0, 2 * tail / 2**n))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p values for their number, in the order given."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def timing(milliseconds: Sequence[float]) -> Timing:
    """Median and 90th percentile, linear between samples."""
    return Timing(float(np.median(milliseconds)), float(np.percentile(milliseconds, 90)), len(milliseconds))


def gain(reference: Sequence[Sequence[float]], times: Sequence[Sequence[float]], ideal: float) -> Gain:
    """How many times faster ``times`` are than those of the reference, with a bootstrap interval and a fixed seed.

    Entry i of both holds the times of round i, as many in every round. The bootstrap draws rounds, not single times, so
    that what slowed the whole machine down for a while cancels out. Rounds without a partner are left out.
    """
    rounds = min(len(reference), len(times))
    first, second = np.asarray(reference[:rounds]), np.asarray(times[:rounds])
    drawn = np.random.default_rng(0).integers(0, rounds, (ROUND_RESAMPLES, rounds))
    ratios = np.median(first[drawn], axis=(1, 2)) / np.median(second[drawn], axis=(1, 2))
    return Gain(float(np.median(first) / np.median(second)), *_percentile_interval(ratios), ideal)


def _paired(a: Scores, b: Scores) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need as many scores on both sides, not {len(first)} and {len(second)}")
    return first, second


def _discordant(a: Scores, b: Scores) -> tuple[int, int]:
    """How many samples are right (a score of at least 0.5) only in ``a``, and only in ``b``."""
    first, second = (scores >= 0.5 for scores in _paired(a, b))
    return int((first & ~second).sum()), int((second & ~first).sum())


def _clusters(values: Floats, groups: Groups | None) -> tuple[Floats, Floats]:
    """Sum and number of the values of every group; each value is a group of its own without ``groups``."""
    if not len(values):
        raise ValueError("an interval needs samples, there are none")
    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups do not fit {len(values)} scores")
    numbers: dict[Hashable, int] = {}
    cluster_of = [numbers.setdefault(group, len(numbers)) for group in groups]
    counts: Floats = np.bincount(cluster_of).astype(np.float64)
    return np.bincount(cluster_of, values).astype(np.float64), counts


def _effective(values: Floats, sums: Floats, counts: Floats) -> float:
    """The effective number of samples: n divided by the design effect, adjusted for degrees of freedom; at most n.

    The design effect is the variance of a mean of clusters (linearised, as for a ratio) over that of independent
    samples. Where all samples are right or all are wrong it cannot be estimated, and each cluster counts as a sample.
    Few clusters tell their variance badly: hence Korn and Graubard's factor (t of n − 1 over t of clusters − 1)².
    """
    n, clusters, mean = len(values), len(sums), float(values.mean())
    if clusters in (1, n):
        return float(clusters)
    factor = (t_quantile(n - 1) / t_quantile(clusters - 1)) ** 2
    if mean in (0.0, 1.0):
        return float(clusters * factor)
    between = float(((sums - mean * counts) ** 2).sum()) * clusters / (clusters - 1) / n**2
    return float(n * factor / max(1.0, between / (mean * (1 - mean) / n)))


def _bootstrap(sums: Floats, counts: Floats) -> tuple[float, float]:
    """Percentile interval of Σ sums ÷ Σ counts over clusters drawn with replacement.

    Equal clusters are drawn together: how often each distinct cluster comes up in a resample is multinomial.
    """
    distinct, times = np.unique(np.stack([sums, counts]), axis=1, return_counts=True)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(sums), times / len(sums), RESAMPLES).astype(np.float64)
    return _percentile_interval((drawn @ distinct[0]) / (drawn @ distinct[1]))


def _percentile_interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
