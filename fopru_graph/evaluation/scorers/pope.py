"""POPE (Li et al. 2023): yes or no, and precision, recall and F1 with *yes* as the positive answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fopru_graph.evaluation.task import Score


def pope(said: str, /, answer: str) -> Score:
    """Whether yes or no was said alone and is right; with precision, recall and F1."""
    word = yes_or_no(said)
    return Score(float(word == answer), {"said": word, "truth": answer})


def yes_or_no(answer: str) -> str:
    """``yes``, ``no`` or ``neither``; the answer must be that word alone in any case, so "Yes." is neither."""
    word = answer.strip().lower()
    return word if word in ("yes", "no") else "neither"


def pope_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Figures of rows whose ``facts`` hold what the model ``said`` and the ``truth``.

    ``precision``, ``recall`` and ``f1`` are counted as lmms-eval does: an answer that is neither yes nor no is wrong,
    but not a false negative. ``yes_ratio`` is the share of answers that are yes (lmms-eval's figure of that name is the
    share of *questions* whose right answer is yes, about 0.5 for any model); ``neither_ratio`` the share that is
    neither.
    """
    if not rows:
        return {}
    pairs = Counter((row["facts"]["said"], row["facts"]["truth"]) for row in rows)
    hits, false_alarms, misses = pairs["yes", "yes"], pairs["yes", "no"], pairs["no", "yes"]
    precision = hits / (hits + false_alarms) if hits + false_alarms else 0.0
    recall = hits / (hits + misses) if hits + misses else 0.0
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": (hits + false_alarms) / len(rows),
        "neither_ratio": (pairs["neither", "yes"] + pairs["neither", "no"]) / len(rows),
    }
