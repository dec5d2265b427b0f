"""OpenAI's chat interface as far as it is served: what a request may say, and what an answer says.

A field of a request that is none of OpenAI's is an input of the pipeline.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fopru_graph.errors import UserError

_COLDEST = 0.01  # colder, logits overflow when they are divided, and on a GPU that ends the process


class BadRequest(UserError):
    """A request that is at fault; ``param`` is the field, ``code`` what is wrong in a word."""

    def __init__(
        self, message: str, hint: str | None = None, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.param, self.code = param, code


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _drawn(temperature: float | None) -> float | None:
    return 0.0 if temperature is not None and temperature < _COLDEST else temperature


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class TextPart(_Request):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Request):
    """Where a picture is: in the address itself (``data:``), or behind it. ``detail`` changes nothing."""

    url: str
    detail: str | None = None


class ImagePart(_Request):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Request):
    """A turn of the chat; a text as ``content`` is a list of that text alone."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_as_parts)]


class StreamOptions(_Request):
    """Of a stream."""

    include_usage: bool | None = None


class ChatRequest(_Request):
    """The body of ``POST /v1/chat/completions``; what it has beside these fields is in ``model_extra``."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2), AfterValidator(_drawn)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    stop: Annotated[Annotated[list[str], Field(max_length=16)] | None, BeforeValidator(_as_list)] = None
    logprobs: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def inputs(self) -> dict[str, Any]:
        """Values for the pipeline's inputs, by name."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in _KNOWN}


# Fields of OpenAI's that have the one effect served here, and by which values they ask for it; None by any.
_KNOWN: dict[str, tuple[Any, ...] | None] = {
    "n": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "top_logprobs": (0, None),
    "response_format": ({"type": "text"}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "functions": ([], None),
    "function_call": ("none", "auto", None),
    "modalities": (["text"], None),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    **dict.fromkeys(("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention")),
    **dict.fromkeys(("reasoning_effort", "safety_identifier", "service_tier", "store", "user", "verbosity")),
}


def read_request(body: bytes) -> ChatRequest:
    """The request of a body.

    Raises:
        BadRequest: it is none, or asks for what is not served.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = _place(first["loc"])
        raise BadRequest(f"{place or 'the body'}: {first['msg']}", None, place or None, first["type"]) from error
    for name, value in (request.model_extra or {}).items():
        served = _KNOWN.get(name)
        if served is not None and value not in served:
            raise BadRequest(f"{name} is not served as it was given", "leave it out", name, "unsupported_value")
    if request.logprobs and request.stream:
        raise BadRequest(
            "logprobs are not served in a stream", "leave one of both out", "logprobs", "unsupported_value"
        )
    return request


def _place(loc: tuple[int | str, ...]) -> str:
    """Where an error is, as ``messages[0].content[1].image_url.url``."""
    if loc[:1] == ("messages",) and len(loc) > 4:
        loc = (*loc[:4], *loc[5:])  # pydantic names the kind of the part there
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


class Usage(BaseModel):
    """Tokens, as they were counted in the run."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Figures(BaseModel):
    """What pruning did: ``batch`` questions were answered together; times are None where none was this question's."""

    pipeline: str
    ratio: float | None
    visual_tokens: dict[str, int | float]
    ttft_ms: float | None
    tpot_ms: float | None
    batch: int


class TokenLogprob(BaseModel):
    """A token of the answer and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = []


class Logprobs(BaseModel):
    """Those of all tokens."""

    content: list[TokenLogprob]


class Said(BaseModel):
    """A message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str


FinishReason = Literal["stop", "length"]


class Choice(BaseModel):
    """The answer."""

    index: int = 0
    message: Said
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


class ChunkChoice(BaseModel):
    """A piece of the answer; the last one says why it ended."""

    index: int = 0
    delta: dict[str, str]
    finish_reason: FinishReason | None = None


class _Reply(BaseModel):
    id: str = Field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str


class Completion(_Reply):
    """The whole answer."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: Usage
    fopru: Figures


class Chunk(_Reply):
    """A part of a stream."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    fopru: Figures | None = None
