"""POPE: does the model see things that are not there? Yes or no, by the way the asked object was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import one_of, text, text_or
from fopru_graph.evaluation.scorers.pope import pope_metrics, said
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import SHORT, plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "question": text(row, "question"),
        "answer": one_of(row, "answer", ("yes", "no")),
        "category": text_or(row, "category", "all"),
    }


@plain
def _prompt(record: Record) -> str:
    return f"{record['question'].strip()}\n{SHORT}"


def _score(answer: str, record: Record) -> Score:
    word, truth = said(answer), record["answer"]
    return Score(float(word == truth), {"said": word, "truth": truth})


_LAYOUT = Layout(
    task="pope",
    hub=Hub(("lmms-lab/POPE", "lmms-lab-encoder/POPE"), "test"),
    required=(("question",), ("answer",), ("image",)),
    optional=("category",),
    prepare=_prepare,
)
POPE = Task(
    name="pope",
    title="POPE, object hallucination",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    max_new_tokens=128,
    scorer="pope@1",
    kind=lambda record: str(record["category"]),
    metrics=pope_metrics,
)
