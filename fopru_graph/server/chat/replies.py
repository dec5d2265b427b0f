"""From an answer of a pipeline to OpenAI's, and from what went wrong to OpenAI's form of an error."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, NodeError, PipelineError
from fopru_graph.server.chat.questions import Asked
from fopru_graph.server.chat.schemas import (
    BadRequest,
    Choice,
    Completion,
    Figures,
    FinishReason,
    Logprobs,
    Said,
    TokenLogprob,
    Usage,
)
from fopru_graph.server.work import Busy, NotLoaded

if TYPE_CHECKING:
    from fopru_graph.answer import Answer
    from fopru_graph.lvlm.families.family import Family


def completion_of(answer: Answer, asked: Asked, logprobs: Logprobs | None = None) -> Completion:
    """A whole answer."""
    choice = Choice(message=Said(content=answer.text), finish_reason=finish_reason(answer), logprobs=logprobs)
    name = asked.served.name
    return Completion(model=name, choices=[choice], usage=usage_of(answer), fopru=figures_of(answer, asked))


def finish_reason(answer: Answer) -> FinishReason:
    """Why an answer ended."""
    return "stop" if answer.result["generation"].ended[answer.place] else "length"


def usage_of(answer: Answer) -> Usage:
    """The tokens of the prompt, with the visual ones that are left, and of the answer, with the one that ended it."""
    new = answer.report["new_tokens"]
    # What the first layers hold: the prompt, and the answer but for its last token, which no layer has seen.
    prompt = max(answer.report["kv_lengths"]) - new + 1
    return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


def figures_of(answer: Answer, asked: Asked) -> Figures:
    """What pruning did for an answer."""
    return Figures(
        pipeline=asked.served.name,
        ratio=asked.sets.get("ratio", asked.served.ratio),
        visual_tokens=answer.visual_tokens,
        ttft_ms=answer.ttft_ms,
        tpot_ms=answer.report["tpot_ms"],
        batch=answer.report["samples"],
    )


def logprobs_of(answer: Answer, family: Family) -> Logprobs:
    """Those of an answer's tokens; a tokenizer is used by one thread at a time, so this runs where models do."""
    generation = answer.result["generation"]
    tokenizer = family.processor.tokenizer
    pairs = zip(generation.token_ids[answer.place], generation.logprobs[answer.place], strict=True)
    texts = [(str(tokenizer.decode([token])), logprob) for token, logprob in pairs]
    return Logprobs(content=[TokenLogprob(token=text, logprob=value, bytes=[*text.encode()]) for text, value in texts])


@dataclass(frozen=True)
class Failure:
    """What went wrong: an HTTP status, and the content of ``error``."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's form of it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def failure_of(error: Exception) -> Failure:
    """How to tell a client of an error: what it can mend in full, of all else no more than that it happened."""
    if isinstance(error, Busy):
        return Failure(429, _sentence(error), "rate_limit_error", None, "busy")
    if isinstance(error, BadRequest):
        status = 404 if error.code == "model_not_found" else 400
        return Failure(status, _sentence(error), "invalid_request_error", error.param, error.code)
    if isinstance(error, PipelineError):
        problem = error.problems[0]
        hint = f" ({problem.hint})" if problem.hint else ""
        return Failure(400, problem.message + hint, "invalid_request_error", None, problem.code)
    if isinstance(error, Cancelled):
        return Failure(503, "the server ends", "server_error", None, "cancelled")
    cause = error.cause if isinstance(error, NodeError) else error
    if isinstance(cause, UserError) and not isinstance(error, NotLoaded):
        return Failure(400, _sentence(cause), "invalid_request_error", None, "unanswerable")
    traceback.print_exception(error, file=sys.stderr)  # it holds paths, which are for who runs the server
    what = _sentence(error) if isinstance(error, NotLoaded) else "the pipeline failed; the server has written why"
    return Failure(500, what, "server_error", None, "failed")


def _sentence(error: UserError) -> str:
    return error.message + (f" ({error.hint})" if error.hint else "")
