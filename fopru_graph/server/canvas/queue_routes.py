"""The routes of jobs: prompts come in, the queue and the history go out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from fopru_graph.comfy.reading import MAX_BYTES
from fopru_graph.errors import UserError
from fopru_graph.server.canvas.history import history_of, job_detail, job_entry, queue_entry, states_of
from fopru_graph.server.canvas.jobs import Jobs
from fopru_graph.server.canvas.prompts import BadPrompt
from fopru_graph.server.guard import of_own_page, refused
from fopru_graph.server.queue import ENDED, QueueFull
from fopru_graph.server.work import Work

_ID = re.compile(r"[\w-]{1,80}")
_PAGE = 200  # jobs in an answer, unless fewer are asked for


class QueueRoutes:
    """Handlers of the routes of jobs."""

    def __init__(self, jobs: Callable[[], Jobs], work: Work) -> None:
        self._jobs, self._work = jobs, work

    def add_to(self, add: Callable[[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]], None]) -> None:
        """Add the routes, ``add("GET", "/prompt", handler)``."""
        add("GET", "/prompt", self.status)
        add("POST", "/prompt", self.post)
        add("POST", "/interrupt", self.interrupt)
        add("GET", "/queue", self.queue)
        add("POST", "/queue", self.change_queue)
        add("GET", "/history", self.history)
        add("GET", "/history/{id}", self.history)
        add("POST", "/history", self.change_history)
        add("GET", "/jobs", self.jobs)
        add("POST", "/jobs/cancel", self.cancel)
        add("GET", "/jobs/{id}", self.job)
        add("POST", "/jobs/{id}/cancel", self.cancel_one)
        add("POST", "/free", self.free)
        add("GET", "/fopru/queue", self.paused)
        add("POST", "/fopru/queue", self.change_order)

    # -- running ------------------------------------------------------------------------------------------------------

    async def status(self, _request: web.Request) -> web.Response:
        """``GET /prompt``: how many jobs there are."""
        return web.json_response({"exec_info": {"queue_remaining": self._jobs().remaining}})

    async def post(self, request: web.Request) -> web.Response:
        """``POST /prompt``: queue one."""
        if len(await request.read()) > MAX_BYTES:
            return refused(413, f"a prompt may have {MAX_BYTES} bytes", "body_size")
        body = await json_of(request)
        extra = given if isinstance(given := body.get("extra_data"), dict) else {}
        targets, id, client = body.get("partial_execution_targets"), body.get("prompt_id"), body.get("client_id")
        try:
            job = await self._jobs().add(
                body.get("prompt"), extra.get("extra_pnginfo"), client if isinstance(client, str) else None,
                targets=[str(name) for name in targets] if isinstance(targets, list) else None,
                front=body.get("front") is True, id=id if isinstance(id, str) and _ID.fullmatch(id) else None,
            )  # fmt: skip
        except BadPrompt as error:
            return web.json_response(error.answer, status=400)
        except UserError as error:
            answer = BadPrompt("queue", f"{error.message} ({error.hint})").answer
            return web.json_response(answer, status=429 if isinstance(error, QueueFull) else 400)
        return web.json_response({"prompt_id": job.id, "number": job.number, "node_errors": {}})

    async def interrupt(self, request: web.Request) -> web.Response:
        """``POST /interrupt``: stop the job that runs, or only the one of ``prompt_id``, which may still wait."""
        body = await json_of(request, optional=True)
        if isinstance(id := body.get("prompt_id"), str):
            await self._jobs().cancel([id])
        else:
            self._jobs().interrupt()
        return web.json_response({})

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /jobs/cancel``: take several out of the queue, or stop them."""
        body = await json_of(request)
        ids = [id for id in _listed(body, "job_ids") if isinstance(id, str)]
        return web.json_response({"cancelled": await self._jobs().cancel(ids)})

    @of_own_page
    async def cancel_one(self, request: web.Request) -> web.Response:
        """``POST /jobs/ID/cancel``: the same for one."""
        return web.json_response({"cancelled": await self._jobs().cancel([request.match_info["id"]])})

    async def free(self, _request: web.Request) -> web.Response:
        """``POST /free``: give the memory of models and outputs back."""

        def free(_cancel: object) -> None:
            self._jobs().free()
            self._work.free()

        await self._work.run(free)
        return web.json_response({})

    # -- the queue ----------------------------------------------------------------------------------------------------

    async def queue(self, _request: web.Request) -> web.Response:
        """``GET /queue``: what runs and what waits."""
        queue = self._jobs().queue
        running, waiting = await asyncio.to_thread(lambda: (queue.jobs("running"), queue.jobs("queued")))
        return web.json_response(
            {"queue_running": list(map(queue_entry, running)), "queue_pending": list(map(queue_entry, waiting))}
        )

    async def change_queue(self, request: web.Request) -> web.Response:
        """``POST /queue``: ``clear`` it, or ``delete`` some jobs."""
        body, jobs = await json_of(request), self._jobs()
        if body.get("clear") is True:
            await asyncio.to_thread(jobs.queue.clear)
        ids = [id for id in _listed(body, "delete") if isinstance(id, str)]
        await asyncio.to_thread(jobs.queue.delete, ids)
        jobs.changed()
        return web.json_response({})

    async def paused(self, _request: web.Request) -> web.Response:
        """``GET /fopru/queue``: whether jobs are left to wait."""
        return web.json_response({"paused": self._jobs().queue.paused, "waiting": self._jobs().queue.waiting()})

    async def change_order(self, request: web.Request) -> web.Response:
        """``POST /fopru/queue``: ``{"paused": true}`` begins no more jobs, ``{"move": ID, "to": 0}`` puts one first."""
        body, jobs = await json_of(request), self._jobs()
        if isinstance(paused := body.get("paused"), bool):
            await asyncio.to_thread(jobs.queue.pause if paused else jobs.queue.resume)
        if isinstance(id := body.get("move"), str):
            place = body.get("to", 0)
            if type(place) is not int or not await asyncio.to_thread(jobs.queue.move, id, place):
                return refused(404, "no such job waits, or its new place is no number", "job")
        jobs.changed()
        return await self.paused(request)

    # -- what was run -------------------------------------------------------------------------------------------------

    async def history(self, request: web.Request) -> web.Response:
        """``GET /history``: ended jobs by id, the latest last; of one id, that one, or nothing while it waits."""
        queue = self._jobs().queue
        if (id := request.match_info.get("id")) is not None:
            job = await asyncio.to_thread(queue.find, id)
            return web.json_response({} if job is None or job.state not in ENDED else {job.id: history_of(job)})
        most, offset = _number(request, "max_items", _PAGE), _number(request, "offset", 0)
        found = await asyncio.to_thread(partial(queue.jobs, *ENDED, newest=True, most=most, offset=max(0, offset)))
        return web.json_response({job.id: history_of(job) for job in reversed(found)})

    async def change_history(self, request: web.Request) -> web.Response:
        """``POST /history``: ``clear`` it, or ``delete`` some jobs."""
        body, jobs = await json_of(request), self._jobs()
        if body.get("clear") is True:
            await asyncio.to_thread(jobs.queue.forget)
        await asyncio.to_thread(jobs.queue.forget, [id for id in _listed(body, "delete") if isinstance(id, str)])
        jobs.changed()
        return web.json_response({})

    async def jobs(self, request: web.Request) -> web.Response:
        """``GET /jobs``: the queue panel's list, waiting ones in their order, then ended ones, the latest first."""
        queue, states = self._jobs().queue, states_of(request.query.get("status", ""))
        limit, offset = _number(request, "limit", _PAGE), max(0, _number(request, "offset", 0))
        found, total = await asyncio.to_thread(_page, queue, states, min(max(limit, 0), _PAGE), offset)
        more = offset + len(found) < total
        pages = {"offset": offset, "limit": limit, "total": total, "has_more": more}
        return web.json_response({"jobs": found, "pagination": pages})

    async def job(self, request: web.Request) -> web.Response:
        """``GET /jobs/ID``: one of them with all that is known."""
        job = await asyncio.to_thread(self._jobs().queue.find, request.match_info["id"])
        return refused(404, "there is no such job", "job") if job is None else web.json_response(job_detail(job))


def _page(queue: Any, states: tuple[Any, ...], limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Entries of jobs in these states, and how many there are in all."""
    groups = [[state for state in states if state == "running"], [state for state in states if state == "queued"]]
    groups.append([state for state in states if state in ENDED])
    entries: list[dict[str, Any]] = []
    total = 0
    for group in filter(None, groups):
        count = queue.count(*group)
        skipped = max(0, offset - total)
        if len(entries) < limit and skipped < count:
            found = queue.jobs(*group, newest=group[0] in ENDED, most=limit - len(entries), offset=skipped)
            entries += map(job_entry, found)
        total += count
    return entries, total


async def json_of(request: web.Request, optional: bool = False) -> dict[str, Any]:
    """The JSON object of a request's body; an empty one if there is none and that may be.

    Raises:
        HTTPBadRequest: the body is something else.
    """
    if optional and not await request.read():
        return {}
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="the body is no JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="the body is no JSON object")
    return body


def _listed(body: dict[str, Any], key: str) -> list[Any]:
    return found if isinstance(found := body.get(key), list) else []


def _number(request: web.Request, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError:
        raise web.HTTPBadRequest(reason=f"{name} is no number") from None
