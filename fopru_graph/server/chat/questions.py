"""From a request to what a pipeline is asked: the question, its pictures, and values of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.graph import Graph, Ref
from fopru_graph.graph.errors import hint_choices
from fopru_graph.graph.values import INPUTS, refs_in
from fopru_graph.server.chat.pictures import load_pictures
from fopru_graph.server.chat.schemas import BadRequest, ChatRequest, Message, TextPart
from fopru_graph.server.settings import Settings

if TYPE_CHECKING:
    from fopru_graph.server.chat.pictures import Identified

_MARKER = "<image>"  # `lvlm.inputs.chat.MARKER`, which would load torch


class Served:
    """A served pipeline as requests see it. Making one imports torch, and loads no model.

    Attributes:
        generating: the node that answers, as `PipelineModel.generating`.
        inputs: the values that requests may change, by name: no paths, nothing that loads, not the question.
        ratio: share of visual tokens that it keeps by itself, if it has such an input.
    """

    def __init__(self, name: str, graph: Graph) -> None:
        from fopru_graph.answering import answering_plan

        plan, self.generating = answering_plan(graph)
        self.name = name
        asked = graph.flat().node(self.generating).inputs.get("prompt")
        self.inputs: Mapping[str, Any] = {
            key: given.default
            for key, given in graph.inputs.items()
            if Ref(INPUTS, key) != asked and _is_open(graph, key)
        }
        self.ratio: float | None = self.inputs.get("ratio")
        self._takes = frozenset(plan.steps[self.generating].spec.inputs)

    def sets(self, request: ChatRequest, system: str, before: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Values for `PipelineModel.answer`.

        Raises:
            BadRequest: the pipeline has no such input.
        """
        for name in request.inputs:
            if name not in self.inputs:
                hint = hint_choices(name, sorted(self.inputs)) or "it has none to set"
                raise BadRequest(f"{self.name} has no input {name!r} to set", hint, name, "unknown_parameter")
        asked: dict[str, Any] = {
            "system": system or None,
            "messages": list(before) or None,
            "stop": request.stop or None,
        }
        asked["logprobs"] = request.logprobs or None
        if request.temperature or "temperature" in self._takes:  # what does not take it, answers as at 0
            asked["temperature"] = request.temperature
        if request.temperature:
            asked |= {"seed": request.seed, "top_p": None if request.top_p == 1 else request.top_p}
        given = {name: value for name, value in asked.items() if value is not None}
        for name in given.keys() - self._takes:
            param = "messages" if name in ("system", "messages") else name
            raise BadRequest(f"{self.name} does not take {name}", "leave it out", param, "unsupported_parameter")
        return request.inputs | {f"{self.generating}.{name}": value for name, value in given.items()}


def _is_open(graph: Graph, name: str) -> bool:
    """Whether anyone may set a pipeline input: it names no file, and nothing that is loaded or written."""
    if "path" in graph.inputs[name].type:
        return False
    flat = graph.flat()
    for entry in flat.nodes.values():
        spec = flat.registry.get(entry.type)
        for key, value in entry.inputs.items():
            if any(ref == Ref(INPUTS, name) for _, ref in refs_in(value)):
                socket = spec.inputs[key]
                if spec.category == "load" or socket.path is not None or socket.file:
                    return False
    return True


@dataclass(frozen=True)
class Asked:
    """What a pipeline is asked.

    ``joins`` says whether it may be answered together with other questions that have the same ``sets`` and
    ``max_new_tokens``.
    """

    served: Served
    prompt: str
    pictures: tuple[Identified, ...]
    sets: Mapping[str, Any]
    max_new_tokens: int | None
    joins: bool


async def read_question(request: ChatRequest, served: Served, settings: Settings) -> Asked:
    """What a request asks of a pipeline.

    Raises:
        BadRequest: it cannot be asked that.
    """
    system, turns = _split(request.messages)
    urls = [part.image_url.url for turn in turns for part in turn.content if not isinstance(part, TextPart)]
    *before, last = turns
    prompt = _written(last)
    if not before and prompt.startswith(_MARKER * len(urls)):
        prompt = prompt.removeprefix(_MARKER * len(urls))  # pictures that are not marked come first anyway
    sets = served.sets(request, system, [_turn(turn) for turn in before])
    return Asked(
        served,
        prompt,
        tuple(await load_pictures(urls, settings)),
        sets,
        request.max_completion_tokens or request.max_tokens,
        joins=len(urls) == 1 and not (before or request.temperature or request.logprobs or request.stream),
    )


def _split(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """What the model is told first, and the turns after it; the last is the user's."""
    first = next((at for at, message in enumerate(messages) if message.role in ("user", "assistant")), len(messages))
    turns = messages[first:]
    if not turns or turns[-1].role != "user":
        raise BadRequest(
            "the last message is not the user's", "end messages with a question", "messages", "no_question"
        )
    for at, message in enumerate(messages):
        for part in message.content:
            if not isinstance(part, TextPart) and message.role != "user":
                raise BadRequest(
                    f"messages[{at}]: pictures are the user's", None, f"messages[{at}]", "unsupported_value"
                )
            if isinstance(part, TextPart) and _MARKER in part.text:
                hint = "give each picture as a part of type image_url, where it stands"
                raise BadRequest(
                    f"messages[{at}] holds the text {_MARKER}", hint, f"messages[{at}]", "unsupported_value"
                )
    return "\n".join(_written(message) for message in messages[:first]), turns


def _turn(message: Message) -> dict[str, str]:
    """A turn as chat templates know it."""
    return {"role": message.role.replace("developer", "system"), "content": _written(message)}


def _written(message: Message) -> str:
    """A turn as one text: its texts, in lines of their own, with a marker where each picture stands."""
    written, after_text = "", False
    for part in message.content:
        is_text = isinstance(part, TextPart)
        written += ("\n" if is_text and after_text else "") + (part.text if isinstance(part, TextPart) else _MARKER)
        after_text = is_text
    return written
