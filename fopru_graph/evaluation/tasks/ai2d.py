"""AI2D: multiple-choice questions about diagrams of school science."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import index, text, texts
from fopru_graph.evaluation.scorers.choice import ai2d, letter
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import LETTER, listed, plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    options = texts(row, "options")
    answer = letter(index(row, "answer", len(options)))
    return {"question": text(row, "question"), "options": options, "answer": answer}


@plain
def _prompt(record: Record) -> str:
    return f"{record['question']}\n{listed(record['options'])}\n{LETTER}"


def _score(answer: str, record: Record) -> Score:
    return Score(float(ai2d(answer, record["answer"])))


_LAYOUT = Layout(
    task="ai2d",
    hub=Hub(("lmms-lab/ai2d", "lmms-lab-encoder/ai2d"), "test"),
    required=(("question",), ("options",), ("answer",), ("image",)),
    prepare=_prepare,
)
AI2D = Task(
    name="ai2d",
    title="AI2D, diagrams",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    max_new_tokens=16,
    scorer="ai2d@1",
)
