"""VQA accuracy (Antol et al. 2015): the score of TextVQA, VizWiz and VQAv2, on answers normalised as their servers do.

Tables and order of the normaliser are the server's (published with Pythia/MMF), with its two mistakes, because
published figures have them too: at most 32 full stops are removed, and a full stop before a digit always stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"(?<=\d),+(?=\d)")
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


def vqa_accuracy(said: str, /, answers: Sequence[str]) -> float:
    """Share of people who agree, each left out in turn, three are enough; texts normalised as for TextVQA and VizWiz.

    ``mean over i of min(1, |{j ≠ i: answers[j] = said}| / 3)``

    Args:
        said: the model's answer.
        answers: those of people, one or more; most benchmarks have ten.
    """
    return _agreement(said, answers, normalise)


def vqav2_accuracy(said: str, /, answers: Sequence[str]) -> float:
    """`vqa_accuracy` with texts normalised as for VQAv2: commas and question marks count like other punctuation."""
    return _agreement(said, answers, normalise_vqav2)


def _agreement(said: str, answers: Sequence[str], normal: Callable[[str], str]) -> float:
    wanted = normal(said.strip())
    agree = [normal(text) == wanted for text in answers]
    total = sum(agree)
    return sum(min(3, total - left_out) for left_out in agree) / (3 * len(agree))


def normalise(text: str) -> str:
    """The text as the EvalAI server compares it: lower case, no articles, digits for small numbers, no punctuation."""
    return normalise_vqav2(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def normalise_vqav2(text: str) -> str:
    """The text as VQAv2's evaluation compares it; unlike `normalise` it leaves ``'s`` where it is."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Delete each mark that occurs beside a space somewhere in the text; replace other marks by spaces.

    A comma between digits deletes all marks.
    """
    result = text
    thousands = _THOUSANDS.search(text) is not None
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or thousands else " ")
    return _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS)
