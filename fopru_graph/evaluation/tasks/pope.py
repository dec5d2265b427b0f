"""POPE: does the model see things that are not there? Yes or no, by the way the asked object was chosen."""

from __future__ import annotations

from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row
from fopru_graph.evaluation.records.columns import one_of, text, text_or
from fopru_graph.evaluation.scorers.pope import pope_metrics, said
from fopru_graph.evaluation.task import Record, Score
from fopru_graph.evaluation.tasks.shared import SHORT, table_task


def _prepare(row: Row) -> dict[str, Any]:
    return {
        "question": text(row, "question"),
        "answer": one_of(row, "answer", ("yes", "no")),
        "kind": text_or(row, "category", "all"),
    }


def _score(answer: str, record: Record) -> Score:
    word, truth = said(answer), record["answer"]
    return Score(float(word == truth), {"said": word, "truth": truth})


POPE = table_task(
    Layout(
        task="pope",
        hub=Hub(("lmms-lab/POPE", "lmms-lab-encoder/POPE"), "test"),
        required=(("question",), ("answer",), ("image",)),
        optional=("category",),
        prepare=_prepare,
    ),
    title="POPE, object hallucination",
    prompt=lambda record: f"{record['question'].strip()}\n{SHORT}",
    score=_score,
    max_new_tokens=128,
    scorer="pope@1",
    metrics=pope_metrics,
)
