"""Questions that wait are answered together: those of one pipeline with equal settings, as many as a batch takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fopru_graph.graph import CancelToken, Event
from fopru_graph.server.chat.questions import Asked
from fopru_graph.server.work import Work

if TYPE_CHECKING:
    from fopru_graph.answer import Answer
    from fopru_graph.pipeline_model import PipelineModel


@dataclass(frozen=True, eq=False)
class _Waiting:
    asked: Asked
    answer: asyncio.Future[Answer]
    since: float


class _Queue(deque[_Waiting]):
    """Questions that go together; ``filled`` is set while there are enough for a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.filled = asyncio.Event()


class Answering:
    """Has questions answered in the thread of `Work`.

    A question that may join others waits ``seconds`` for them, or until there are ``size``. While the thread is busy it
    waits on, and goes with whoever has come by then.
    """

    def __init__(self, work: Work, size: int, seconds: float) -> None:
        self._work, self._size, self._seconds = work, size, seconds
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, asked: Asked) -> Answer:
        """The answer to a question that may join others, or to any other.

        Raises:
            NotLoaded: the pipeline's model cannot be loaded.
            Exception: what `PipelineModel.answer` raises.
        """
        if not asked.joins or self._size == 1:
            return await self.alone(asked, None)
        key = json.dumps([asked.served.name, asked.max_new_tokens, asked.sets], sort_keys=True)
        waiting = _Waiting(asked, asyncio.get_running_loop().create_future(), time.monotonic())
        if key not in self._queues:
            self._queues[key] = _Queue()
            task = asyncio.create_task(self._serve(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue = self._queues[key]
        queue.append(waiting)
        if len(queue) >= self._size:
            queue.filled.set()
        return await waiting.answer

    async def alone(self, asked: Asked, on_event: Callable[[Event], None] | None) -> Answer:
        """The answer to a question by itself; ``on_event`` is called in the thread. Raises as `answer`."""
        return await self._work.run(partial(self._answer, asked, on_event))

    def _answer(self, asked: Asked, on_event: Callable[[Event], None] | None, cancel: CancelToken) -> Answer:
        model = self._work.model(asked.served.name)
        return model.answer(
            asked.prompt, asked.pictures, asked.max_new_tokens, sets=asked.sets, on_event=on_event, cancel=cancel
        )

    async def _serve(self, key: str) -> None:
        """Have the questions of a queue answered until there is none."""
        queue = self._queues[key]
        while queue:
            try:
                rest = queue[0].since + self._seconds - time.monotonic()
                await asyncio.wait_for(queue.filled.wait(), max(0.0, rest))
            except TimeoutError:
                pass
            try:
                await self._work.run(partial(self._answer_batch, queue))
            except Exception as error:  # of none of the questions: the model cannot be loaded, or the server ends
                while queue:
                    _settle(queue.popleft(), error)
        del self._queues[key]

    def _answer_batch(self, queue: _Queue, _cancel: CancelToken) -> None:
        """Answer as many as go together; in the thread."""
        model = self._work.model(queue[0].asked.served.name)
        size = self._size if model.batches else 1
        batch: list[_Waiting] = []
        while queue and len(batch) < size:
            waiting = queue.popleft()
            if not waiting.answer.done():  # else nobody waits for it any more
                batch.append(waiting)
        if len(queue) < self._size:
            queue.filled.clear()
        try:
            _answer_together(model, batch)
        except Exception as error:  # the server ends
            for waiting in batch:
                waiting.answer.get_loop().call_soon_threadsafe(_settle, waiting, error)


def _answer_together(model: PipelineModel, batch: list[_Waiting]) -> None:
    from fopru_graph.batches import answered, equal_batches, work_of

    family = model.handle.family
    work = [work_of(family, each.asked.prompt, each.asked.pictures[0][1].size[::-1]) for each in batch]
    for numbers in equal_batches(work, max(1, len(batch))):
        part = [batch[number] for number in numbers]
        questions = [(each.asked.prompt, each.asked.pictures[0]) for each in part]
        first = part[0].asked
        outcomes = answered(model, questions, first.max_new_tokens, first.sets)
        for waiting, outcome in zip(part, outcomes, strict=True):
            waiting.answer.get_loop().call_soon_threadsafe(_settle, waiting, outcome)


def _settle(waiting: _Waiting, outcome: Answer | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(outcome, Exception):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)
