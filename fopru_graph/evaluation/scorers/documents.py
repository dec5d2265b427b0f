"""ChartQA's relaxed accuracy, and the average normalised Levenshtein similarity (ANLS) of DocVQA."""

from __future__ import annotations

from collections.abc import Sequence


def relaxed(said: str, /, answer: str, *, tolerance: float = 0.05) -> bool:
    """Whether a number is within a share of the right one; whether a text is equal apart from case.

    A number with ``%`` is a hundredth, so "12" is not "12%". A right answer of 0 is compared as text.
    """
    said = said.strip()
    number, right = _number(said), _number(answer)
    if number is None or not right:
        return said.lower() == answer.lower()
    return abs(number - right) / abs(right) <= tolerance


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(said: str, /, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """1 − edit distance / length to the closest accepted answer, without case and double spaces; 0 below a threshold.

    The length is that of the longer text before its spaces are put together, as in lmms-eval.
    """
    said = said.strip()
    similarity = 1 - min(_distance(said, answer) for answer in answers)
    return similarity if similarity >= threshold else 0.0


def _distance(said: str, answer: str) -> float:
    length = max(len(answer.upper()), len(said.upper()))
    return _edits(" ".join(answer.lower().split()), " ".join(said.lower().split())) / length if length else 0.0


def _edits(first: str, second: str) -> int:
    """Levenshtein's distance: the fewest characters to insert, delete or replace."""
    before = list(range(len(second) + 1))
    for row, character in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (character != other)))
        before = now
    return before[-1]
