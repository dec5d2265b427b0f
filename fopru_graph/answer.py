"""The answer to a question: its text, what it cost, and a picture of the visual tokens that were kept for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError
from fopru_graph.graph import RunResult

if TYPE_CHECKING:
    import PIL.Image

_FIGURES = ("tpot_ms", "new_tokens", "kv_bytes", "device", "dtype")


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a question. ``str(answer)`` is its text; a notebook shows text, picture and figures.

    It holds on to the pictures as they were given, until `picture` is drawn from them: paths, or objects of Python.

    Attributes:
        text: what the model said.
        report: all figures of the generating node, see `values.Generation.report`.
        ttft_ms: milliseconds until the first token was known, None where a part of the work came from a cache.
        result: the run up to the answer.
        place: the question's place in ``result``, which may be of a batch. Of a batch, each answer's report has its own
            counts of tokens and bytes, without padding; the times in it are those of all ``samples``, and ``ttft_ms``
            is None: no question had a first token of its own.
    """

    text: str
    report: dict[str, Any] = field(repr=False)
    ttft_ms: float | None
    result: RunResult = field(repr=False)
    _values: Callable[[], RunResult] | None = field(default=None, repr=False)
    place: int = 0

    def __str__(self) -> str:
        return self.text

    @property
    def visual_tokens(self) -> dict[str, Any]:
        """How many were ``encoded``, ``kept`` before the language model, ``final`` in its last layer; on average."""
        tokens: dict[str, Any] = self.report["visual_tokens"]
        return tokens

    @property
    def figures(self) -> dict[str, Any]:
        """The figures that people look at first.

        ``visual_tokens`` (encoded, kept, final, layer_average), ``ttft_ms``, ``tpot_ms`` (None for one token),
        ``new_tokens``, ``kv_bytes``, ``device``, ``dtype``.
        """
        first = {"visual_tokens": self.visual_tokens, "ttft_ms": self.ttft_ms}
        return first | {name: self.report.get(name) for name in _FIGURES}

    @cached_property
    def picture(self) -> PIL.Image.Image:
        """What was kept: the picture as the model saw it, dropped patches dimmed, the scores beside it.

        It is drawn when it is first asked for; what is not in a cache any more is computed again, the answer is not.

        Raises:
            UserError: the pipeline has no tokens to draw, or the picture is not there any more.
        """
        from fopru_graph.pictures.of_run import picture_values

        if self._values is None:
            raise UserError("no picture is drawn of what was asked in a batch", "ask the question alone")
        found = picture_values(self._values())
        if found is None:
            raise UserError("there is no picture of what was kept", "the pipeline projects no features of its own")
        return found.drawn(f"{found.generation.prompts[0]}  →  {self.text}")

    def _repr_html_(self) -> str:
        from fopru_graph.notebook import answer_html

        return answer_html(self)
