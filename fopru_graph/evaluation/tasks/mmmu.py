"""MMMU (validation): questions of college exams with one or several pictures, by subject."""

from __future__ import annotations

import ast
import re
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row, open_records
from fopru_graph.evaluation.records.columns import ColumnError, text, texts
from fopru_graph.evaluation.scorers.mmmu import choice, guess, mmmu_metrics, open_answer
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.shared import lettered, plain

_PICTURES = tuple(f"image_{number}" for number in range(1, 8))
_PICTURE = re.compile(r"<image (\d+)>")
_SUBJECT = re.compile(r"[^_]*_(.+?)_\d+")  # of an id like validation_Art_Theory_12
_SHORT = "Answer the question using a single word or phrase."
_LETTER = "Answer with the option's letter from the given choices directly."
_CHOICE = "multiple-choice"
_LONGEST = 100_000  # characters of a list of options


def _prepare(row: Row) -> dict[str, Any]:
    answer, identity = row.get("answer"), text(row, "id")
    subject = _SUBJECT.fullmatch(identity)
    record = {
        "id": identity,
        "kind": subject[1] if subject else "all",
        "question": text(row, "question"),
        "question_type": text(row, "question_type"),
        "answers": texts(row, "answer") if isinstance(answer, list) else [text(row, "answer")],
        "options": _options(row),
    }
    if record["question_type"] == _CHOICE and not record["options"]:
        raise ColumnError("column 'options' holds no options")
    if unknown := [name for name in _pictures(record) if name not in _PICTURES]:
        raise ColumnError(f"column 'question' names a picture that no column holds: {', '.join(unknown)}")
    return record


def _options(row: Row) -> list[str]:
    """The options; the data set has them as the text of a Python list."""
    value = row.get("options")
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if len(value) <= _LONGEST else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list | tuple):
        raise ColumnError("column 'options' holds no list")
    return [str(option) for option in value]


def _prompt(record: Record) -> str:
    if record["question_type"] == _CHOICE:
        return f"{record['question']}\n{lettered(record['options'])}\n\n{_LETTER}"
    return f"{record['question']}\n\n{_SHORT}"


def _pictures(record: Record) -> list[str]:
    """The columns of the pictures that the prompt names, each once.

    The pictures come before the text, which keeps ``<image 1>`` as it is.
    """
    return sorted({f"image_{number}" for number in _PICTURE.findall(_prompt(record))})


def _score(answer: str, record: Record) -> Score:
    """Score an answer; for multiple choice with the facts ``guessed`` and ``option``."""
    if record["question_type"] != _CHOICE:
        return Score(float(open_answer(answer, record["answers"])))
    named = choice(answer, record["options"])
    option = named or guess(record["id"], len(record["options"]))
    return Score(float(option in record["answers"]), {"guessed": named is None, "option": option})


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
    prompt=lambda record: plain(_prompt(record)),
    score=_score,
    max_new_tokens=128,
    scorer="mmmu_official@1",
    metrics=mmmu_metrics,
)
