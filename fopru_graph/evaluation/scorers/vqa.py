"""VQA accuracy (Antol et al. 2015) on answers normalised as the EvalAI server does: the score of TextVQA.

Tables and order of the normaliser are the server's (published with Pythia/MMF), with its two mistakes, because
published figures have them too: at most 32 full stops are removed, and a full stop before a digit always stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'  # commas and question marks are removed before
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)} | {"none": "0"}
# Words that may lack their apostrophe; a word with several may lack one at a time.
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've "
    "you'll you're you've"
)


def _contractions() -> dict[str, str]:
    table = {}
    for word in _CONTRACTED.split():
        for match in re.finditer("'", word):
            table[word[: match.start()] + word[match.end() :]] = word
    table["somebody'd"] = "somebodyd"  # the wrong way round in the server's table
    return table


_CONTRACTIONS = _contractions()


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Share in [0, 1] of people who agree with the answer, each left out in turn; three who agree are enough.

    ``mean over i of min(1, |{j ≠ i: answers[j] = answer}| / 3)``, with all texts normalised.

    Args:
        answer: the model's.
        answers: those of people, one or more; TextVQA has ten.
    """
    said = normalise(answer.strip())
    agree = [normalise(text) == said for text in answers]
    total = sum(agree)
    return sum(min(3, total - left_out) for left_out in agree) / (3 * len(agree))


def normalise(text: str) -> str:
    """The text as the EvalAI server compares it: lower case, no articles, digits for small numbers, no punctuation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(text).split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Delete each mark that occurs beside a space somewhere in the text; replace other marks by spaces."""
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space else " ")
    return _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS)
