"""ScienceQA, the questions with a picture (SQA-IMG), by subject."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import index, text, text_or, texts
from fopru_graph.evaluation.scorers.choice import letter, scienceqa
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import LETTER, listed, plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    choices = texts(row, "choices")
    return {
        "question": text(row, "question"),
        "choices": choices,
        "answer": letter(index(row, "answer", len(choices))),
        "hint": text_or(row, "hint", ""),
        "subject": text_or(row, "subject", "all"),
    }


@plain
def _prompt(record: Record) -> str:
    context = f"Context: {record['hint']}\n" if record["hint"] else ""
    return f"{context}{record['question']}\n{listed(record['choices'])}\n{LETTER}"


def _score(answer: str, record: Record) -> Score:
    return Score(float(scienceqa(answer, record["answer"])))


_LAYOUT = Layout(
    task="scienceqa",
    hub=Hub(("lmms-lab/ScienceQA", "lmms-lab-encoder/ScienceQA"), "test", "ScienceQA-IMG"),
    required=(("question",), ("choices",), ("answer",), ("image",)),
    optional=("hint", "subject"),
    prepare=_prepare,
)
SCIENCEQA = Task(
    name="scienceqa",
    title="ScienceQA, questions with a picture",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    max_new_tokens=16,
    scorer="scienceqa@1",
    kind=lambda record: str(record["subject"]),
)
