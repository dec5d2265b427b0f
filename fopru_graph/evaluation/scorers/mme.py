"""MME (Fu et al. 2023): yes or no, two questions a picture; its score counts questions and whole pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fopru_graph.evaluation.task import Score

_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")


def mme(said: str, /, answer: str, pair: str) -> Score:
    """Whether yes or no is right, from the first four characters; with MME's scores of pairs of questions."""
    return Score(float(_word(said) == answer), {"pair": pair})


def _word(said: str) -> str:
    said = said.strip().lower().strip().replace(".", "")
    if len(said) == 1:
        return {"y": "yes", "n": "no"}.get(said, "other")
    return next((word for word in ("yes", "no") if word in said[:4]), "other")


def mme_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``perception`` (of 2000) and ``cognition`` (of 800): sums over the categories of accuracy and accuracy+.

    Accuracy+ counts pairs of questions with the same ``pair`` that are both right; both are in percent. Pairs of which
    a question is missing (an error, a limit) count nowhere but in ``incomplete_pairs``. A category of neither part is
    left out.
    """
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        pairs[row["type"], row["facts"]["pair"]].append(row["score"])
    points: dict[str, list[float]] = defaultdict(list)
    for (category, _), scores in pairs.items():
        if len(scores) == 2:
            points[category].append(50 * sum(scores) + 100 * (sum(scores) == 2))
    means = {category: sum(values) / len(values) for category, values in points.items()}
    return {
        "perception": sum(means.get(category, 0.0) for category in _PERCEPTION),
        "cognition": sum(means.get(category, 0.0) for category in _COGNITION),
        "incomplete_pairs": float(sum(len(scores) != 2 for scores in pairs.values())),
    }
