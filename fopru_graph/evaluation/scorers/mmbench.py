"""MMBench (Liu et al. 2023): which option an answer names, by rules alone, and circular accuracy.

The benchmark asks a language model about answers that its rules cannot read. lmms-eval 0.7.3 does so in
``mmbench_en_dev``, and reads them by further rules in ``mmbench_en_dev_static``; the rules here are the latter's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fopru_graph.evaluation.task import Score

ROTATION = 1_000_000  # a question's other orders of options have its index and a multiple of this
_LETTERS = "ABCDE"
_COLUMNS = "ABCD"  # the data set's columns of options
_LONG = 3  # words; in longer answers a lone A may be an article
_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_ENDS = ",.!?;:'\""
_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_AFTER_PHRASE, _FALLBACK = 7, 0
_MARKED = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}  # form of a letter to how much it counts


def mmbench(said: str, /, answer: str, options: Sequence[str], index: int) -> Score:
    """Whether the option that rules find in the answer is right; with circular accuracy."""
    said = said.strip()
    named = _letter_named(said) or _text_named(said, options) or _letter_searched(said)
    return Score(float(named == answer), {"question": index % ROTATION, "rotated": index >= ROTATION})


def mmbench_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``circular``: the share of questions that are answered rightly in every order of their options (CircularEval).

    Questions whose first order was not scored are left out.
    """
    hits: dict[int, bool] = defaultdict(lambda: True)
    first = set()
    for row in rows:
        question = row["facts"]["question"]
        hits[question] &= row["score"] == 1
        if not row["facts"]["rotated"]:
            first.add(question)
    return {"circular": sum(hits[question] for question in first) / len(first)} if first else {}


def _letter_named(said: str) -> str | None:
    """The one letter that stands alone in the answer, or the one in the first form with punctuation that has one."""
    words = set(said.split())
    alone = [option for option in _LETTERS if option in words]
    # An A in a long answer may be an article, so then no letter counts that stands alone.
    if len(alone) == 1 and not ("A" in words and len(said.split()) > _LONG):
        return alone[0]
    for form in _FORMS:
        named = [option for option in _LETTERS if form.format(option) in words]
        if len(named) == 1:
            return named[0]
    return None


def _text_named(said: str, options: Sequence[str]) -> str | None:
    """The letter of the one option whose text the answer contains; lmms-eval also finds the ``nan`` of missing ones."""
    said = said.lower()
    named = [option for option, text in zip(_COLUMNS, options, strict=False) if text.lower() in said]
    return named[0] if len(named) == 1 else None


def _letter_searched(said: str) -> str | None:
    """The letter that stands in the most telling place; of several there the last.

    Places from the most telling: the start, the end, behind a phrase such as "the answer is", in brackets, before a
    full stop, a colon, a bracket, a space; else anywhere.
    """
    for mark in _ENDS:
        said = said.strip(mark)
    text = f" {said} "
    bare = text.strip()
    found: list[tuple[int, int, str]] = []  # how telling, where, which letter
    lower = text.lower()
    behind = [lower.find(phrase) + len(phrase) for phrase in _PHRASES if phrase in lower]
    for option in _COLUMNS:
        marked = ((form.format(option), rank) for form, rank in _MARKED.items())
        found += [(rank, text.rfind(form), option) for form, rank in marked if form in text]
        found += [(_AFTER_PHRASE, place, option) for after in behind if (place := text.find(option, after)) >= 0]
        if bare.startswith(option) and not bare[1:2].isalpha():
            found.append((10, 0, option))
        if bare.endswith(option) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, option))
    if not found:
        found = [(_FALLBACK, text.rfind(option), option) for option in _COLUMNS if option in text]
    return max(found, key=lambda place: place[:2])[2] if found else None
