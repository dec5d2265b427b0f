"""Prompts that were posted: checked, queued, run one after the other, and told about."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from fopru_graph.comfy.plan import plan_of
from fopru_graph.errors import UserError
from fopru_graph.graph import (
    Cancelled,
    CancelToken,
    Event,
    Executor,
    MemoryCache,
    NodeError,
    NodeStarted,
    PipelineError,
    Registry,
)
from fopru_graph.graph.memory import Values
from fopru_graph.server.canvas.known_files import KnownFiles
from fopru_graph.server.canvas.messages import Message, Messages, Shown, status_message
from fopru_graph.server.canvas.prompts import BadPrompt, Runnable, read_prompt
from fopru_graph.server.canvas.showing import shown
from fopru_graph.server.folders import Folders
from fopru_graph.server.queue import Job, JobQueue, State
from fopru_graph.server.settings import Settings
from fopru_graph.server.work import Work
from fopru_graph.values import ModelHandle

Tell = Callable[[str | None, Message], None]
_WANTED, _TARGETS, _INFO = "wanted", "targets", "extra_pnginfo"  # what is kept beside a prompt


class Jobs:
    """The jobs of one server.

    Args:
        settings: what the server was told.
        work: runs them, and shares its models with them.
        folders: where files are.
        tell: sends a message to a client, or to all for None. It is called in the thread of the loop.

    Attributes:
        queue: all jobs, on disk.
        registry: the node types.
        files: what the nodes may read.
        running: the job that runs, and what stops it.
    """

    def __init__(self, settings: Settings, work: Work, folders: Folders, tell: Tell) -> None:
        graphs = list(settings.pipelines.values())
        self.registry = graphs[0].registry if graphs else Registry.default()
        self.files = KnownFiles(graphs, folders.place("input"))
        self.queue = JobQueue(folders.queue)
        self.running: tuple[Job, CancelToken] | None = None
        self.node = ""  # the one that runs
        self._work, self._folders, self._tell = work, folders, tell
        self._cache = _Cache(work.loaded)
        self._executor = Executor(self.registry, cache=self._cache)
        self._wake, self._closing = asyncio.Event(), False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    # -- what clients ask ---------------------------------------------------------------------------------------------

    @property
    def remaining(self) -> int:
        """How many jobs wait or run."""
        return self.queue.count("queued", "running")

    async def add(
        self,
        prompt: Any,
        info: Any = None,
        client: str | None = None,
        *,
        targets: Iterable[str] | None = None,
        front: bool = False,
        id: str | None = None,
    ) -> Job:
        """Check a prompt and queue it; it is on disk afterwards.

        Args:
            prompt: nodes by id.
            info: the workflow that it was made of, which comes back with the history and lies in its pictures.
            client: who is told of its progress.
            targets: nodes that are wanted, if not all that show something.
            front: whether it is the next to run.
            id: its id, if the client has one.

        Raises:
            BadPrompt: it cannot be run.
            UserError: too many jobs wait, or there is one of this id.
        """
        targets = None if targets is None else list(targets)
        runnable = await asyncio.to_thread(read_prompt, prompt, self.registry, self.files, targets)
        extra = {_WANTED: list(runnable.wanted), _TARGETS: targets, _INFO: info if isinstance(info, dict) else {}}

        async def put() -> Job:
            job = await asyncio.to_thread(self.queue.add, prompt, extra, client, front, id)
            self.changed()
            return job

        return await asyncio.shield(put())  # a client that goes away now has its job all the same

    def changed(self) -> None:
        """Tell everybody how many jobs there are, and go on if there is one."""
        self._tell(None, status_message(self.remaining))
        self._wake.set()

    def interrupt(self, id: str | None = None) -> bool:
        """Stop the job that runs, if it is the one of this id; None is any. Returns whether there is one."""
        if self.running is None or id not in (None, self.running[0].id):
            return False
        self.running[1].cancel()
        return True

    async def cancel(self, ids: Iterable[str]) -> int:
        """Take jobs out of the queue, or stop them; ended ones stay. Returns how many there were."""
        listed = list(ids)
        deleted = await asyncio.to_thread(self.queue.delete, listed)
        self.changed()
        return len(deleted) + sum(self.interrupt(id) for id in listed if id not in deleted)

    def free(self) -> None:
        """Forget all outputs. Only for use in the thread of `Work`."""
        self._cache.clear()

    async def close(self) -> None:
        """Stop the job that runs, and close the queue: what waits is run by the next server."""
        self._closing = True
        self.interrupt()
        self._wake.set()
        await self._task
        self.queue.close()

    # -- running ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            job = await asyncio.to_thread(self.queue.take, 0)
            if job is None:
                await self._wake.wait()
                continue
            stop = CancelToken()
            self.running, self.node = (job, stop), ""
            try:
                await self._run_job(job, stop)
            except Exception:  # of ours, or of the disk: the next job runs all the same
                traceback.print_exc(file=sys.stderr)
                with contextlib.suppress(Exception):
                    await asyncio.to_thread(self.queue.end, job.id, "failed")
            self.running = None

    async def _run_job(self, job: Job, stop: CancelToken) -> None:
        telling = partial(self._from_thread, job.client)
        try:
            state, messages = await self._work.run(lambda _ended: self._execute(job, stop, telling))
        except Cancelled:  # the server ends
            state, messages = "interrupted", None
        result = messages.result() if messages is not None else {}
        await asyncio.to_thread(self.queue.end, job.id, state, result)
        self.running = None
        if messages is not None:
            messages.finished(lambda: self._tell(None, status_message(self.remaining)))

    def _from_thread(self, client: str | None, message: Message) -> None:
        if client is not None:
            self._loop.call_soon_threadsafe(self._tell, client, message)

    def _execute(self, job: Job, stop: CancelToken, send: Callable[[Message], None]) -> tuple[State, Messages]:
        """Run a job in the thread of `Work`."""
        runnable, problem = self._runnable(job)
        types = runnable.types if runnable else {}
        resting = runnable.resting if runnable else list
        messages = Messages(job.id, types, resting, partial(self._shown, job, runnable), send)
        if runnable is None:
            messages.failed(UserError(problem))
            return "failed", messages
        out = self._folders.place("output") / job.id if runnable.writes else None
        try:
            if stop.is_cancelled():
                raise Cancelled
            result = self._executor.run(
                runnable.graph, on_event=partial(self._on_event, messages), cancel=stop, out=out
            )
        except Cancelled:
            messages.interrupted()
            return "interrupted", messages
        except (NodeError, PipelineError, UserError) as error:
            self._print(error)
            messages.failed(error, self._clean)
            return "failed", messages
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            messages.failed(error, self._clean)
            return "failed", messages
        for node in runnable.wanted:
            if node not in messages.shown and node in result.by_node:
                self._cache.latest = dict(result.by_node[node])
                messages.show_late(node, self._shown(job, runnable, node))
        messages.succeeded()
        return "done", messages

    def _runnable(self, job: Job) -> tuple[Runnable | None, str]:
        """The job's pipeline; or None, and why: files and node types may have changed since it was queued."""
        try:
            return read_prompt(job.prompt, self.registry, self.files, job.extra.get(_TARGETS)), ""
        except BadPrompt as error:
            told = [each["message"] for node in error.answer["node_errors"].values() for each in node["errors"]]
            return None, "; ".join(told) or str(error)

    def _on_event(self, messages: Messages, event: Event) -> None:
        if isinstance(event, NodeStarted):
            self._cache.latest = None
            self.node = event.node
        messages(event)

    def _shown(self, job: Job, runnable: Runnable | None, node: str) -> Shown:
        """What the node shows whose outputs were put into the cache, or found there, just now."""
        if runnable is None or self._cache.latest is None or node not in runnable.wanted:
            return {}
        plan = plan_of(self.registry.get(runnable.graph.nodes[node].type))
        info = job.extra.get(_INFO, {})
        metadata = {"prompt": job.prompt} | ({"workflow": info["workflow"]} if "workflow" in info else {})
        return shown(plan, self._cache.latest, self._folders, metadata)

    def _clean(self, text: str) -> str:
        """A message without folders of this machine."""
        for folder in (self._folders.root, Path.home()):
            text = text.replace(f"{folder}/", "")
        return text

    @staticmethod
    def _print(error: Exception) -> None:
        cause = error.cause if isinstance(error, NodeError) else error
        if not isinstance(cause, (UserError, PipelineError)):
            traceback.print_exception(cause, file=sys.stderr)


class _Cache(MemoryCache):
    """The outputs of the nodes of the latest runs. Models are those that chats have loaded, and the other way round.

    Attributes:
        latest: the outputs that were put in or found last; None if none were found.
    """

    def __init__(self, loaded: dict[str, Values]) -> None:
        super().__init__()
        self.latest: Values | None = None
        self._models = loaded

    def get(self, key: str) -> Values | None:
        self.latest = super().get(key) or self._models.get(key)
        return self.latest

    def put(self, key: str, values: Values) -> None:
        super().put(key, values)
        if any(isinstance(value, ModelHandle) for value in values.values()):
            self._models[key] = dict(values)
        self.latest = values
