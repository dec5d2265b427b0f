"""GQA: compositional questions about real pictures (testdev-balanced), by the structure of the question."""

from __future__ import annotations

from typing import Any

from fopru_graph.evaluation.records import Hub, Join, Layout, Row
from fopru_graph.evaluation.records.columns import text, text_or
from fopru_graph.evaluation.scorers.matching import exact_match
from fopru_graph.evaluation.tasks.shared import SHORT, score_by, table_task


def _prepare(row: Row) -> dict[str, Any]:
    types = row.get("types")
    kind = text_or(types, "structural", "all") if isinstance(types, dict) else "all"
    return {"question": text(row, "question"), "answer": text(row, "answer"), "kind": kind}


GQA = table_task(
    Layout(
        task="gqa",
        hub=Hub(("lmms-lab/GQA", "lmms-lab-encoder/GQA"), "testdev", "testdev_balanced_instructions"),
        required=(("question",), ("answer",), ("image", "imageId")),
        optional=("types",),
        prepare=_prepare,
        join=Join("imageId", "testdev_balanced_images", "testdev"),
    ),
    title="GQA, testdev-balanced",
    prompt=lambda record: f"{record['question']}\n{SHORT}",
    score=score_by(exact_match),
    max_new_tokens=16,
    scorer="exact_match@1",
)
