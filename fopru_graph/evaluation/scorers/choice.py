"""Letters of multiple-choice answers, as ScienceQA and AI2D read them."""

from __future__ import annotations

import re

from fopru_graph.evaluation.scorers.exact import exact_match

_LEADING_LETTER = re.compile(r"\s*([A-Z])\.")


def letter(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def scienceqa(answer: str, right: str) -> bool:
    """Whether the answer is the letter ``right``, in any case, or begins with it in upper case and a full stop."""
    answer = answer.strip()
    if answer.lower() == right.lower():
        return True
    return answer[:1].isupper() and answer[1:2] == "." and answer[0].lower() == right.lower()


def ai2d(answer: str, right: str) -> bool:
    """`exact_match` with the letter ``right``; of an answer that begins with A–Z and a full stop only that counts."""
    found = _LEADING_LETTER.match(answer)
    return exact_match(found[1] if found else answer, right)
