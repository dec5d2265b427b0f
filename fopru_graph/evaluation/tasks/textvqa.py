"""TextVQA (validation): reading text in pictures, without and with the tokens that an OCR system found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Hub, Layout, open_records
from fopru_graph.evaluation.records.cells import text, texts
from fopru_graph.evaluation.scorers.vqa import vqa_accuracy
from fopru_graph.evaluation.task import Record, Score, Task
from fopru_graph.evaluation.tasks.prompts import SHORT, plain


def _prepare(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"question": text(row, "question"), "answers": texts(row, "answers")}


def _prepare_ocr(row: Mapping[str, Any]) -> dict[str, Any]:
    return _prepare(row) | {"ocr_tokens": texts(row, "ocr_tokens", empty=True)}


@plain
def _prompt(record: Record) -> str:
    """The question with only its first letter in upper case, as the harness has it; names lose theirs."""
    return f"{record['question'].capitalize()}\n{SHORT}"


@plain
def _prompt_ocr(record: Record) -> str:
    tokens = ", ".join(record["ocr_tokens"])
    return f"{record['question'].capitalize()}\nReference OCR token: {tokens}\n{SHORT}"


def _score(answer: str, record: Record) -> Score:
    return Score(vqa_accuracy(answer, record["answers"]))


_LAYOUT = Layout(
    task="textvqa",
    hub=Hub(("lmms-lab/textvqa", "lmms-lab-encoder/textvqa"), "validation"),
    required=(("question",), ("answers",), ("image",)),
    prepare=_prepare,
)
_LAYOUT_OCR = replace(
    _LAYOUT,
    task="textvqa_ocr",
    required=(*_LAYOUT.required, ("ocr_tokens",)),
    prepare=_prepare_ocr,
    file_names=("textvqa",),
)
TEXTVQA = Task(
    name="textvqa",
    title="TextVQA, validation, without OCR tokens",
    open=partial(open_records, _LAYOUT),
    prompt=_prompt,
    score=_score,
    # The harness leaves it to the model's class, mostly 1024. An answer must equal people's few words, so none that
    # goes on beyond 128 tokens could have scored.
    max_new_tokens=128,
    scorer="vqa_accuracy@1",
)
TEXTVQA_OCR = replace(
    TEXTVQA,
    name="textvqa_ocr",
    title="TextVQA, validation, with OCR tokens in the prompt",
    open=partial(open_records, _LAYOUT_OCR),
    prompt=_prompt_ocr,
)
