"""GQA: compositional questions about real pictures (testdev-balanced), by the structure of the question."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Join, Layout, open_records
from fopru_graph.evaluation.records.cells import text, text_or
from fopru_graph.evaluation.scorers.exact import exact_match
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import SHORT, plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    types = row.get("types")
    kind = text_or(types, "structural", "all") if isinstance(types, dict) else "all"
    return {"question": text(row, "question"), "answer": text(row, "answer"), "kind": kind}


@plain
def _prompt(record: Record) -> str:
    return f"{record['question']}\n{SHORT}"


def _score(answer: str, record: Record) -> Score:
    return Score(float(exact_match(answer, record["answer"])))


_LAYOUT = Layout(
    task="gqa",
    hub=Hub(("lmms-lab/GQA", "lmms-lab-encoder/GQA"), "testdev", "testdev_balanced_instructions"),
    required=(("question",), ("answer",), ("image", "imageId")),
    optional=("types",),
    prepare=_prepare,
    join=Join("imageId", "testdev_balanced_images", "testdev"),
)
GQA = Task(
    name="gqa",
    title="GQA, testdev-balanced",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    max_new_tokens=16,
    scorer="exact_match@1",
    kind=lambda record: str(record["kind"]),
)
