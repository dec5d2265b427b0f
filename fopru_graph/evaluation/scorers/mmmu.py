"""MMMU (Yue et al. 2023): the official reading of answers to multiple-choice and to open questions.

Rules of the benchmark's own ``eval_utils.py`` (Apache-2.0), which lmms-eval follows again since 0.7.3; from 0.3.5 to
0.7.2 it counted every open answer wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fopru_graph.evaluation.scorers.choice import letter

_MARKS = ",.!?;:'"
_LONG = 5  # only answers with more words than this are searched for the text of an option
# What the end of an answer follows upon; the last line may also be an equation.
_SIGNS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # thousands
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # scientific
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),  # plain
)


def choice(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer to a multiple-choice question names, or None.

    Looked for in this order: ``(A)``; an A before a space; an A before a full stop; the text of an option, in answers
    of more than five words. Of several the one whose last place is furthest back; at equal places (or where none
    stands between spaces) the first option.
    """
    answer = answer.strip()
    for mark in _MARKS:
        answer = answer.strip(mark)
    answer = f" {answer} "
    letters = [letter(i) for i in range(len(options))]
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [one for one in letters if form.format(one) in answer]
        if found:
            return max(found, key=lambda one: answer.rfind(place.format(one)))
    if len(answer.split()) <= _LONG:
        return None
    low = answer.lower()
    named = [i for i, option in enumerate(options) if option.lower() in low]
    return letter(max(named, key=lambda i: low.rfind(options[i].lower()))) if named else None


def guess(identity: str, count: int) -> str:
    """A letter for an answer that names none, out of ``count``: the same for the same question in every run.

    The official rule draws one at random, anew in every run.
    """
    digest = hashlib.sha256(f"mmmu/{identity}".encode()).digest()
    return letter(int.from_bytes(digest[:8]) % count)


def open_answer(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer to an open question matches one of the right ones.

    Candidates are the ends of its sentences that follow upon words like "is" or "answer", and all numbers in those. A
    number matches a number equal to it at two decimals; a text matches where it contains the right text.
    """
    wanted = [form for one in right for form in _normalised(one)]
    texts = [one for one in wanted if isinstance(one, str)]
    numbers = [one for one in wanted if isinstance(one, float)]
    for candidate in _candidates(answer.strip()):
        if isinstance(candidate, float):
            if candidate in numbers:
                return True
        elif any(text in candidate for text in texts):
            return True
    return False


def mmmu_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``guessed``: number of answers that named no option, so that a letter was drawn for them."""
    return {"guessed": float(sum(bool(row["facts"].get("guessed")) for row in rows))}


def _candidates(answer: str) -> list[str | float]:
    ends = _ends(answer.strip(".").lower())
    numbers = [number for end in ends for form in _NUMBERS for number in form.findall(end)]
    return [form for one in ends + numbers for form in _normalised(one)]


def _ends(answer: str) -> list[str]:
    """What stands after the signs, the shortest of each line; the whole answer where there is no sign."""
    lines = answer.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        shortest = ""
        for sign in (*_SIGNS, "=") if number == len(lines) else _SIGNS:
            if sign in line:
                end = line.rsplit(sign, 1)[1].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and not (len(shortest) == 1 and shortest in _MARKS):
            found.append(shortest)
    return found or [answer]


def _normalised(text: str) -> list[str | float]:
    """A number at two decimals, or lower case; a single letter only beside a space, lest it match inside of words."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
