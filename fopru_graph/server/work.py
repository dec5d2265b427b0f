"""The one place where a server's pipelines run: a thread, the models that it has loaded, and what waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken
from fopru_graph.server.settings import Settings

if TYPE_CHECKING:
    from fopru_graph.pipeline_model import PipelineModel

_Result = TypeVar("_Result")


class Busy(UserError):
    """As many requests as may wait are waiting."""


class NotLoaded(UserError):
    """A served pipeline cannot be used, which no request is to blame for; the cause says why."""


class Work:
    """Runs what is asked of the models, in its order, in one thread: a model answers one question, or one batch.

    Attributes:
        pipelines: what is served, by name.
        loaded: outputs of loading nodes by their cache keys, for `load_models`: whatever runs here shares its models.
            Only for use in the thread.
    """

    def __init__(self, settings: Settings) -> None:
        self.pipelines = settings.pipelines
        self.loaded: dict[str, dict[str, Any]] = {}
        self._models: dict[str, PipelineModel] = {}
        self._most, self._inside = settings.limits.waiting, 0
        self._ended = CancelToken()
        self._tokens: set[CancelToken] = set()
        self._thread = ThreadPoolExecutor(1, "fopru-graph pipelines")

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """A block for one request, from before its pictures are decoded until it is answered.

        Raises:
            Busy: there are as many as may be.
        """
        if self._inside >= self._most:
            raise Busy(f"{self._inside} requests are waiting", "ask again later")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, work: Callable[[CancelToken], _Result]) -> _Result:
        """What ``work`` returns, called in the thread when its turn comes.

        It gets a token that is set when the task that waits for it is cancelled, or the server ends. What has not
        begun then never begins.

        Raises:
            Cancelled: the server ends.
            Exception: what ``work`` raises.
        """
        if self._ended.is_cancelled():
            raise Cancelled
        token = CancelToken()
        self._tokens.add(token)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, token)
        except asyncio.CancelledError:
            token.cancel()
            raise
        finally:
            self._tokens.discard(token)

    def model(self, name: str) -> PipelineModel:
        """A served pipeline, its model loaded. Only for use in the thread.

        Raises:
            NotLoaded: its model cannot be loaded.
            Cancelled: the server ends.
        """
        if name not in self._models:
            from fopru_graph.pipeline_model import PipelineModel

            try:
                self._models[name] = PipelineModel(self.pipelines[name], self.loaded, self._ended)
            except Cancelled:
                raise
            except Exception as error:
                raise NotLoaded(f"{name} cannot be loaded; the server has written why") from error
        return self._models[name]

    def free(self) -> None:
        """Give the memory of all models back; the next question loads its own anew. Only for use in the thread."""
        self._models.clear()
        self.loaded.clear()

    async def close(self) -> None:
        """End what runs, and wait for that."""
        for token in (self._ended, *self._tokens):
            token.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
