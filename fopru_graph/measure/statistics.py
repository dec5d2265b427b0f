"""Medians, percentiles and how sure one can be of a ratio of two medians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fopru_graph.results.bench import Gain, Timing

RESAMPLES = 2000
_LEVEL = 95


def timing(samples: Sequence[float]) -> Timing:
    """Median and 90th percentile (linear between samples) of milliseconds."""
    return Timing(float(np.median(samples)), float(np.percentile(samples, 90)), len(samples))


def gain(reference: Sequence[float], other: Sequence[float], ideal: float) -> Gain:
    """How many times faster ``other`` is, with a bootstrap interval.

    Sample i of both was taken in the same round, so rounds are drawn with replacement, not samples: what slowed the
    whole machine down for a while then cancels out. A fixed seed makes the interval repeat.
    """
    rounds = min(len(reference), len(other))
    first, second = np.asarray(reference[:rounds]), np.asarray(other[:rounds])
    drawn = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, rounds))
    ratios = np.median(first[drawn], axis=1) / np.median(second[drawn], axis=1)
    low, high = np.percentile(ratios, [(100 - _LEVEL) / 2, (100 + _LEVEL) / 2])
    return Gain(float(np.median(first) / np.median(second)), float(low), float(high), ideal)
