"""AI2D: multiple-choice questions about diagrams of school science."""

from __future__ import annotations

from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row
from fopru_graph.evaluation.records.columns import index, text, texts
from fopru_graph.evaluation.scorers.matching import ai2d, letter
from fopru_graph.evaluation.task import Record
from fopru_graph.evaluation.tasks.shared import LETTER, listed, score_by, table_task


def _prepare(row: Row) -> dict[str, Any]:
    options = texts(row, "options")
    answer = letter(index(row, "answer", len(options)))
    return {"question": text(row, "question"), "options": options, "answer": answer}


def _prompt(record: Record) -> str:
    return f"{record['question']}\n{listed(record['options'])}\n{LETTER}"


AI2D = table_task(
    Layout(
        task="ai2d",
        hub=Hub(("lmms-lab/ai2d", "lmms-lab-encoder/ai2d"), "test"),
        required=(("question",), ("options",), ("answer",), ("image",)),
        prepare=_prepare,
    ),
    title="AI2D, diagrams",
    prompt=_prompt,
    score=score_by(ai2d),
    max_new_tokens=16,
    scorer="ai2d@1",
)
