"""MMMU (validation): questions of college exams with one or several pictures, by subject."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import CellError, text, texts
from fopru_graph.evaluation.scorers.mmmu import choice, guess, mmmu_metrics, open_answer
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import LETTER, SHORT, listed, plain

_PICTURES = tuple(f"image_{number}" for number in range(1, 8))
_PICTURE = re.compile(r"<image (\d+)>")
_SUBJECT = re.compile(r"[^_]*_(.+?)_\d+")
_CHOICE = "multiple-choice"
_LONGEST = 100_000  # characters of a list of options


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row.get("answer")
    record = {
        "id": text(row, "id"),
        "question": text(row, "question"),
        "question_type": text(row, "question_type"),
        "answers": texts(row, "answer") if isinstance(answer, list) else [text(row, "answer")],
        "options": _options(row),
    }
    if record["question_type"] == _CHOICE and not record["options"]:
        raise CellError("column 'options' holds no options")
    strange = [name for name in _pictures(record) if name not in _PICTURES]
    if strange:
        raise CellError(f"column 'question' names a picture that no column holds: {', '.join(strange)}")
    return record


def _options(row: Mapping[str, Any]) -> list[str]:
    """The options; the data set has them as a list written out in Python."""
    value = row.get("options")
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if len(value) <= _LONGEST else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list | tuple):
        raise CellError("column 'options' holds no list")
    return [str(option) for option in value]


@plain
def _prompt(record: Record) -> str:
    return _text(record)


def _text(record: Record) -> str:
    if record["question_type"] == _CHOICE:
        return f"{record['question']}\n{listed(record['options'])}\n\n{LETTER}"
    return f"{record['question']}\n\n{SHORT}"


def _pictures(record: Record) -> list[str]:
    """The columns of the pictures that the prompt names, each once; they come before the text, which stays as it is."""
    return sorted({f"image_{number}" for number in _PICTURE.findall(_text(record))})


def _score(answer: str, record: Record) -> Score:
    """With the facts ``guessed`` and ``option`` for multiple choice."""
    if record["question_type"] != _CHOICE:
        return Score(float(open_answer(answer, record["answers"])))
    named = choice(answer, record["options"])
    option = named or guess(record["id"], len(record["options"]))
    return Score(float(option in record["answers"]), {"guessed": named is None, "option": option})


def _kind(record: Record) -> str:
    """The subject out of an id like ``validation_Art_Theory_12``."""
    found = _SUBJECT.fullmatch(record["id"])
    return found[1] if found else "all"


_LAYOUT = Layout(
    task="mmmu",
    hub=Hub(("lmms-lab/MMMU", "lmms-lab-encoder/MMMU"), "validation"),
    required=(("id",), ("question",), ("options",), ("answer",), ("question_type",), ("image_1",)),
    prepare=_prepare,
    pictures=_pictures,
    picture_columns=_PICTURES,
)
MMMU = Task(
    name="mmmu",
    title="MMMU, validation",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    max_new_tokens=128,
    scorer="mmmu_official@1",
    kind=_kind,
    metrics=mmmu_metrics,
)
