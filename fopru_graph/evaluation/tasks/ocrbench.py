"""OCRBench: reading text of five sorts, by the kind of question; its score is out of 1000."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row
from fopru_graph.evaluation.records.columns import text, texts
from fopru_graph.evaluation.scorers.ocrbench import Version, ocrbench, ocrbench_metrics
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.shared import table_task


def _prepare(row: Row) -> dict[str, Any]:
    single = isinstance(row.get("answer"), str)
    return {
        "question": text(row, "question"),
        "answer": [text(row, "answer")] if single else texts(row, "answer"),
        "dataset": text(row, "dataset"),
        "kind": text(row, "question_type"),
    }


def _task(layout: Layout, title: str, version: Version) -> Task:
    def score(answer: str, record: Record) -> Score:
        return Score(float(ocrbench(answer.strip(), record["answer"], record["dataset"], version)))

    return table_task(
        layout,
        title=title,
        prompt=lambda record: record["question"].strip(),
        score=score,
        max_new_tokens=128,
        scorer=f"ocrbench@{version}",
        metrics=ocrbench_metrics,
    )


_LAYOUT = Layout(
    task="ocrbench",
    hub=Hub(("echo840/OCRBench",), "test"),
    required=(("question",), ("answer",), ("dataset",), ("question_type",), ("image",)),
    prepare=_prepare,
)
_LAYOUT_2024 = replace(_LAYOUT, task="ocrbench_2024", file_names=("ocrbench",))
OCRBENCH = _task(_LAYOUT, "OCRBench, today's rule", "2026")
OCRBENCH_2024 = _task(_LAYOUT_2024, "OCRBench, the rule of 2024", "2024")
