"""ScienceQA, the questions with a picture (SQA-IMG), by subject."""

from __future__ import annotations

from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row
from fopru_graph.evaluation.records.columns import index, text, text_or, texts
from fopru_graph.evaluation.scorers.matching import letter, scienceqa
from fopru_graph.evaluation.task import Record
from fopru_graph.evaluation.tasks.shared import LETTER, listed, score_by, table_task


def _prepare(row: Row) -> dict[str, Any]:
    choices = texts(row, "choices")
    return {
        "question": text(row, "question"),
        "choices": choices,
        "answer": letter(index(row, "answer", len(choices))),
        "hint": text_or(row, "hint", ""),
        "kind": text_or(row, "subject", "all"),
    }


def _prompt(record: Record) -> str:
    context = f"Context: {record['hint']}\n" if record["hint"] else ""
    return f"{context}{record['question']}\n{listed(record['choices'])}\n{LETTER}"


SCIENCEQA = table_task(
    Layout(
        task="scienceqa",
        hub=Hub(("lmms-lab/ScienceQA", "lmms-lab-encoder/ScienceQA"), "test", "ScienceQA-IMG"),
        required=(("question",), ("choices",), ("answer",), ("image",)),
        optional=("hint", "subject"),
        prepare=_prepare,
    ),
    title="ScienceQA, questions with a picture",
    prompt=_prompt,
    score=score_by(scienceqa),
    max_new_tokens=16,
    scorer="scienceqa@1",
)
