"""Answers that must equal the right text (scenes, GQA) or the letter of an option (AI2D, ScienceQA)."""

from __future__ import annotations

import re
import string

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LEADING_LETTER = re.compile(r"\s*([A-Z])\.")


def exact(answer: str, right: str) -> bool:
    """Whether both are the same text, character by character."""
    return answer == right


def exact_match(answer: str, right: str) -> bool:
    """Whether both are the same text apart from case, ASCII punctuation and white space around the answer.

    Other white space counts, also what remains between deleted punctuation: ``". yes"`` is not ``"yes"``.
    """
    return _folded(answer.strip()) == _folded(right)


def letter(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def scienceqa(answer: str, right: str) -> bool:
    """Whether the answer is the letter ``right`` in any case, or begins with it in upper case and a full stop."""
    answer = answer.strip()
    if answer.lower() == right.lower():
        return True
    return answer[:1].isupper() and answer[1:2] == "." and answer[0].lower() == right.lower()


def ai2d(answer: str, right: str) -> bool:
    """`exact_match` with the letter ``right``; of an answer that begins like ``B. text`` only the letter counts."""
    leading = _LEADING_LETTER.match(answer)
    return exact_match(leading[1] if leading else answer, right)


def _folded(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)
