"""The routes of OpenAI's chat interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fopru_graph.errors import UserError
from fopru_graph.graph import CancelToken, Event, NodeText
from fopru_graph.graph.errors import hint_choices
from fopru_graph.server.chat.batching import Answering
from fopru_graph.server.chat.questions import Asked, Served, read_question
from fopru_graph.server.chat.replies import completion_of, failure_of, figures_of, finish_reason, logprobs_of, usage_of
from fopru_graph.server.chat.schemas import BadRequest, Chunk, ChunkChoice, Logprobs, read_request
from fopru_graph.server.settings import Settings
from fopru_graph.server.work import Work

if TYPE_CHECKING:
    from fopru_graph.answer import Answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(app: web.Application, settings: Settings, work: Work) -> None:
    """Add ``/v1/models`` and ``/v1/chat/completions``."""
    chat = _Chat(settings, work)
    app.router.add_get("/v1/models", _telling(chat.models))
    app.router.add_get("/v1/models/{model}", _telling(chat.model))
    app.router.add_post("/v1/chat/completions", _telling(chat.complete))


def _telling(handler: Handler) -> Handler:
    """A handler whose failures are told in OpenAI's form."""

    @wraps(handler)
    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            failure = failure_of(error)
            return web.json_response(failure.body, status=failure.status)

    return told


class _Chat:
    def __init__(self, settings: Settings, work: Work) -> None:
        self._settings, self._work = settings, work
        self._answering = Answering(work, settings.batch_size, settings.batch_seconds)
        self._served: dict[str, Served] = {}
        self._since = int(time.time())

    async def models(self, _request: web.Request) -> web.Response:
        """What is served; a pipeline that answers no question about a picture is for the canvas alone."""
        data = []
        for name in self._settings.pipelines:
            with contextlib.suppress(UserError):
                data.append(await self._described(name))
        return web.json_response({"object": "list", "data": data})

    async def model(self, request: web.Request) -> web.Response:
        """One of them."""
        return web.json_response(await self._described(request.match_info["model"]))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a question, at once or piece by piece."""
        body = read_request(await request.read())
        served = await self._find(body.model)
        with self._work.room():
            asked = await read_question(body, served, self._settings)
            if body.stream:
                return await self._stream(request, asked, body.wants_usage)
            answer = await self._answering.answer(asked)
            logprobs = await self._work.run(partial(self._logprobs, answer, asked)) if body.logprobs else None
        reply = completion_of(answer, asked, logprobs)
        return web.Response(text=reply.model_dump_json(), content_type="application/json")

    def _logprobs(self, answer: Answer, asked: Asked, _cancel: CancelToken) -> Logprobs:
        return logprobs_of(answer, self._work.model(asked.served.name).handle.family)

    async def _described(self, name: str) -> dict[str, Any]:
        served = await self._find(name)
        about = {"description": self._settings.pipelines[name].description, "inputs": dict(served.inputs)}
        return {"id": name, "object": "model", "created": self._since, "owned_by": "fopru-graph", "fopru": about}

    async def _find(self, name: str) -> Served:
        """A served pipeline, looked at when it is first asked for."""
        graph = self._settings.pipelines.get(name)
        if graph is None:
            hint = hint_choices(name, self._settings.pipelines)
            raise BadRequest(f"there is no model {name[:100]!r}", hint, "model", "model_not_found")
        if name not in self._served:
            self._served[name] = await asyncio.to_thread(Served, name, graph)
        return self._served[name]

    async def _stream(self, request: web.Request, asked: Asked, with_usage: bool) -> web.StreamResponse:
        """The answer as server-sent events; what goes wrong before the first piece is told as without a stream."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def on_event(event: Event) -> None:
            if isinstance(event, NodeText) and event.node == asked.served.generating:
                loop.call_soon_threadsafe(pieces.put_nowait, event.chunk)

        task = asyncio.create_task(self._answering.alone(asked, on_event))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            first = await pieces.get()
            if first is None:
                task.result()  # raises what went wrong
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            await response.prepare(request)
            async for event in _events(first, pieces, task, asked, with_usage):
                await response.write(f"data: {event}\n\n".encode())
            return response
        finally:  # a client that is gone needs no more of the answer
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _events(
    piece: str | None, pieces: asyncio.Queue[str | None], task: asyncio.Task[Answer], asked: Asked, with_usage: bool
) -> AsyncIterator[str]:
    """The data of all events of a stream, from the first piece on; None stands for the end of the answer."""
    start = Chunk(model=asked.served.name)

    def chunk(**fields: Any) -> str:
        return start.model_copy(update=fields).model_dump_json()

    yield chunk(choices=[ChunkChoice(delta={"role": "assistant", "content": ""})])
    said = ""
    while piece is not None:
        said += piece
        yield chunk(choices=[ChunkChoice(delta={"content": piece})])
        piece = await pieces.get()
    try:
        answer = task.result()
    except Exception as error:  # the status of the answer has been sent
        yield json.dumps(failure_of(error).body)
        return
    if rest := answer.text.removeprefix(said):  # of nodes that do not stream
        yield chunk(choices=[ChunkChoice(delta={"content": rest})])
    last = ChunkChoice(delta={}, finish_reason=finish_reason(answer))
    yield chunk(choices=[last], fopru=figures_of(answer, asked))
    if with_usage:
        yield chunk(usage=usage_of(answer))
    yield "[DONE]"
