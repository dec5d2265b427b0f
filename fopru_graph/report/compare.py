"""The page of ``fopru-graph compare``: answers to the same question with and without pruning, side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fopru_graph.report.page.page import render
from fopru_graph.terminal.format import milliseconds, percent, ratio_text, size

_QUALITY = 88  # of the JPEG pictures


@dataclass(frozen=True, eq=False)
class ComparedAnswer:
    """How one pipeline answered one question.

    ``visual_tokens`` are those of `Generation.report`; ``ttft_ms`` is the time to first token and ``total_ms`` that to
    the last, from the pixels in memory. ``same``: the text is that of the unpruned model, None for that one itself and
    where it has no answer. ``overlay`` shows what is left in the last layer, ``mask`` (h, w) bool says it of a tile
    that shows the whole picture; None where nothing can be drawn.
    ``whole`` counts the visual tokens that the unpruned model encodes of the picture; None where it has no answer.
    ``error`` says why there is no answer; then all figures are None.
    """

    pipeline: str
    ratio: float | None
    text: str | None = None
    visual_tokens: dict[str, Any] | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    new_tokens: int | None = None
    kv_bytes: int | None = None
    same: bool | None = None
    error: str | None = None
    overlay: Image.Image | None = None
    mask: npt.NDArray[np.bool_] | None = None
    whole: int | None = None

    @property
    def label(self) -> str:
        """Pipeline and ratio."""
        return self.pipeline if self.ratio in (None, 1.0) else f"{self.pipeline} {ratio_text(self.ratio)}"

    @property
    def tokens(self) -> str:
        """Visual tokens, e.g. ``256 → 128 → 64``: encoded, into the model, in its last layer; equal ones once."""
        if self.visual_tokens is None:
            return "–"
        return " → ".join(dict.fromkeys(str(self.visual_tokens[name]) for name in ("encoded", "kept", "final")))

    @property
    def share(self) -> float | None:
        """The share of the unpruned model's tokens that the last layer sees: a picture made smaller has fewer."""
        tokens = self.visual_tokens
        whole = self.whole or (tokens["encoded"] if tokens else None)
        return tokens["final"] / whole if tokens and whole else None

    def to_json(self) -> dict[str, Any]:
        """The answer without its pictures."""
        return {name: value for name, value in vars(self).items() if name not in ("overlay", "mask", "whole")}


@dataclass(frozen=True, eq=False)
class ComparedQuestion:
    """A question about a picture and its answers, the unpruned one first; ``error`` says why nobody was asked."""

    image: str
    prompt: str
    answers: Sequence[ComparedAnswer] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All but the pictures."""
        answers = [answer.to_json() for answer in self.answers]
        return {"image": self.image, "prompt": self.prompt, "error": self.error, "answers": answers}


@dataclass(frozen=True, eq=False)
class Comparison:
    """All questions, and what answered them."""

    model: str
    device: str
    dtype: str
    questions: Sequence[ComparedQuestion]

    @property
    def failed(self) -> bool:
        """Whether an answer is missing."""
        return any(q.error or any(answer.error for answer in q.answers) for q in self.questions)

    def to_json(self) -> dict[str, Any]:
        """As ``compare --json`` prints it."""
        about = {"model": self.model, "device": self.device, "dtype": self.dtype}
        return about | {"questions": [question.to_json() for question in self.questions], "summary": self.summary()}

    def summary(self) -> list[dict[str, Any]]:
        """For each pipeline: questions that it answered, as the unpruned model did, medians of tokens and times.

        ``ttft_share`` and ``total_share`` are medians of the times over those of the unpruned model; None for it.
        """
        rows = []
        answered = [question.answers for question in self.questions if question.answers]
        for number, first in enumerate(answered[0] if answered else ()):
            pairs = [(each[number], each[0]) for each in answered if each[number].error is None]
            paired = [pair for pair in pairs if pair[1].error is None] if number else []
            rows.append(
                {
                    "pipeline": first.pipeline,
                    "ratio": first.ratio,
                    "label": first.label,
                    "answered": len(pairs),
                    "same": sum(bool(answer.same) for answer, _ in paired) if number else None,
                    "share": _median(answer.share for answer, _ in pairs),
                    "ttft_ms": _median(answer.ttft_ms for answer, _ in pairs),
                    "total_ms": _median(answer.total_ms for answer, _ in pairs),
                    "ttft_share": _median(_over(answer.ttft_ms, plain.ttft_ms) for answer, plain in paired),
                    "total_share": _median(_over(answer.total_ms, plain.total_ms) for answer, plain in paired),
                }
            )
        return rows


def _over(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def comparison_page(comparison: Comparison) -> str:
    """One HTML file that needs nothing else: no network, no script."""
    return render(
        "compare",
        comparison=comparison,
        embedded=_embedded,
        milliseconds=milliseconds,
        percent=percent,
        size=size,
        over=_over,
    )


def _embedded(picture: Image.Image) -> str:
    """A picture as a data URL."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
