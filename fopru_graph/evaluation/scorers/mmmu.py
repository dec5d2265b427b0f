"""MMMU (Yue et al. 2023): the official rules for answers to multiple-choice and to open questions.

They are the rules of the benchmark's ``eval_utils.py`` (Apache-2.0). lmms-eval follows them again since 0.7.3; from
0.3.5 to 0.7.2 it counted every open answer wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fopru_graph.evaluation.scorers.matching import letter

_MARKS = ",.!?;:'"
_LONG = 5  # only answers with more words are searched for the text of an option
# The final answer comes after one of these; the last line may also be an equation.
_SIGNS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # thousands
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # scientific
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),  # plain
)


def choice(answer: str, options: Sequence[str]) -> str | None:
    """The letter that an answer to a multiple-choice question names, or None.

    Searches in this order: ``(A)``; an A before a space; an A before a full stop; the text of an option, in answers of
    more than five words. If several options match, the one that occurs last wins; the first option if they occur at the
    same position, or if none occurs between spaces.
    """
    answer = answer.strip()
    for mark in _MARKS:
        answer = answer.strip(mark)
    answer = f" {answer} "
    letters = [letter(i) for i in range(len(options))]
    for form, position in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [option for option in letters if form.format(option) in answer]
        if named:
            return max(named, key=lambda option: answer.rfind(position.format(option)))
    if len(answer.split()) <= _LONG:
        return None
    answer = answer.lower()
    matching = [i for i, option in enumerate(options) if option.lower() in answer]
    return letter(max(matching, key=lambda i: answer.rfind(options[i].lower()))) if matching else None


def guess(identity: str, count: int) -> str:
    """One of ``count`` letters for an answer that names none; the same for the same question in every run.

    The official rule draws a new random letter in every run.
    """
    digest = hashlib.sha256(f"mmmu/{identity}".encode()).digest()
    return letter(int.from_bytes(digest[:8]) % count)


def open_answer(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer to an open question matches one of the right answers.

    Candidates are the ends of its sentences after words like "is" or "answer", and all numbers in them. A number
    matches an equal number at two decimals; a text matches if it contains the right text.
    """
    wanted = [form for text in right for form in _normalised(text)]
    texts = [form for form in wanted if isinstance(form, str)]
    numbers = [form for form in wanted if isinstance(form, float)]
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
    return [form for text in ends + numbers for form in _normalised(text)]


def _ends(answer: str) -> list[str]:
    """The shortest text after a sign in each line; the whole answer if it has no sign."""
    lines = answer.split("\n")
    ends = []
    for number, line in enumerate(lines, start=1):
        shortest = ""
        for sign in (*_SIGNS, "=") if number == len(lines) else _SIGNS:
            if sign in line:
                end = line.rsplit(sign, 1)[1].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and not (len(shortest) == 1 and shortest in _MARKS):
            ends.append(shortest)
    return ends or [answer]


def _normalised(text: str) -> list[str | float]:
    """A number at two decimals, or text in lower case; a single letter gets a space, so that no word contains it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
