"""Whole answers compared: character by character, or without case and punctuation (GQA and, after a filter, AI2D)."""

from __future__ import annotations

import string

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(answer: str, right: str) -> bool:
    """Whether both are the same text, character by character."""
    return answer == right


def exact_match(answer: str, right: str) -> bool:
    """Whether both are the same but for case and ASCII punctuation.

    White space counts, but for that around the answer: what is left inside of deleted punctuation makes a difference,
    so ``". yes"`` is not ``"yes"``.
    """
    return _folded(answer.strip()) == _folded(right)


def _folded(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)
