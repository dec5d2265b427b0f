"""OCRBench: reading of five sorts, by kind of question; figures are out of 1000."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import text, texts
from fopru_graph.evaluation.scorers.ocrbench import Version, ocrbench, ocrbench_metrics
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    one_text = isinstance(row.get("answer"), str)
    return {
        "question": text(row, "question"),
        "answer": [text(row, "answer")] if one_text else texts(row, "answer"),
        "dataset": text(row, "dataset"),
        "question_type": text(row, "question_type"),
    }


@plain
def _prompt(record: Record) -> str:
    return str(record["question"].strip())


def _score(version: Version, answer: str, record: Record) -> Score:
    return Score(float(ocrbench(answer.strip(), record["answer"], record["dataset"], version)))


_LAYOUT = Layout(
    task="ocrbench",
    hub=Hub(("echo840/OCRBench",), "test"),
    required=(("question",), ("answer",), ("dataset",), ("question_type",), ("image",)),
    prepare=_prepare,
)
OCRBENCH = Task(
    name="ocrbench",
    title="OCRBench, today's rule",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=partial(_score, "2026"),
    max_new_tokens=128,
    scorer="ocrbench@2026",
    kind=lambda record: str(record["question_type"]),
    metrics=ocrbench_metrics,
)
OCRBENCH_2024 = replace(
    OCRBENCH,
    name="ocrbench_2024",
    title="OCRBench, the rule of 2024",
    open=partial(open_records, replace(_LAYOUT, task="ocrbench_2024", file_names=("ocrbench",))),
    score=partial(_score, "2024"),
    scorer="ocrbench@2024",
)
