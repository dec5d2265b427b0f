"""Answers that must equal the right text (scenes, GQA) or the letter of an option (AI2D, ScienceQA, SEED-Bench)."""

from __future__ import annotations

import re
import string

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LEADING_LETTER = re.compile(r"\s*([A-Z])\.")


def exact(said: str, /, answer: str) -> bool:
    """Whether both are the same text, character by character."""
    return said == answer


def exact_match(said: str, /, answer: str) -> bool:
    """Whether both are the same text apart from case, ASCII punctuation and white space around what was said.

    Other white space counts, also what remains between deleted punctuation: ``". yes"`` is not ``"yes"``.
    """
    return _folded(said.strip()) == _folded(answer)


def letter(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def scienceqa(said: str, /, answer: str) -> bool:
    """Whether the letter was said in any case, or first of all in upper case with a full stop."""
    said = said.strip()
    if said.lower() == answer.lower():
        return True
    return said[:1].isupper() and said[1:2] == "." and said[0].lower() == answer.lower()


def ai2d(said: str, /, answer: str) -> bool:
    """`exact_match` with a letter; of what begins like ``B. text`` only the letter counts."""
    leading = _LEADING_LETTER.match(said)
    return exact_match(leading[1] if leading else said, answer)


def first_letter(said: str, /, answer: str) -> bool:
    """Whether the first character that was said is the letter, in any case, so "Because" is B."""
    return said.strip()[:1].lower().strip() == answer.strip().lower()


def _folded(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)
