"""TextVQA (validation): reading text in pictures, without and with the tokens that an OCR system found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, Row
from fopru_graph.evaluation.records.columns import text, texts
from fopru_graph.evaluation.scorers.vqa import vqa_accuracy
from fopru_graph.evaluation.task import Record, Task
from fopru_graph.evaluation.tasks.shared import SHORT, score_by, table_task


def _prepare(row: Row) -> dict[str, Any]:
    return {"question": text(row, "question"), "answers": texts(row, "answers")}


def _prepare_ocr(row: Row) -> dict[str, Any]:
    return _prepare(row) | {"ocr_tokens": texts(row, "ocr_tokens", empty=True)}


def _prompt(record: Record) -> str:
    """The question with only its first letter in upper case, as lmms-eval writes it; names lose their capitals."""
    return f"{record['question'].capitalize()}\n{SHORT}"


def _prompt_ocr(record: Record) -> str:
    tokens = ", ".join(record["ocr_tokens"])
    return f"{record['question'].capitalize()}\nReference OCR token: {tokens}\n{SHORT}"


def _task(title: str, prompt: Callable[[Record], str], **layout: Any) -> Task:
    hub = Hub(("lmms-lab/textvqa", "lmms-lab-encoder/textvqa"), "validation")
    return table_task(
        Layout(hub=hub, **layout),
        title=title,
        prompt=prompt,
        score=score_by(vqa_accuracy, "answers"),
        # lmms-eval leaves the number to the model's class, mostly 1024. An answer must equal people's few words, so
        # no answer that goes on beyond 128 tokens could have scored.
        max_new_tokens=128,
        scorer="vqa_accuracy@1",
    )


TEXTVQA = _task(
    "TextVQA, validation, without OCR tokens",
    _prompt,
    task="textvqa",
    required=(("question",), ("answers",), ("image",)),
    prepare=_prepare,
)
TEXTVQA_OCR = _task(
    "TextVQA, validation, with OCR tokens in the prompt",
    _prompt_ocr,
    task="textvqa_ocr",
    required=(("question",), ("answers",), ("image",), ("ocr_tokens",)),
    prepare=_prepare_ocr,
    file_names=("textvqa",),
)
