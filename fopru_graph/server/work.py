"""The one place where a server's pipelines run: a thread, the models that it has loaded, and what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fopru_graph.errors import UserError
from fopru_graph.graph import CancelToken
from fopru_graph.server.settings import Settings

if TYPE_CHECKING:
    from fopru_graph.pipeline_model import PipelineModel

_Result = TypeVar("_Result")


class Busy(UserError):
    """As many as may wait are waiting."""


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
        self._most, self._waiting = settings.limits.waiting, 0
        self._tokens: set[CancelToken] = set()
        self._thread = ThreadPoolExecutor(1, "fopru-graph pipelines")

    def check_room(self) -> None:
        """Refuse a request where too many wait already.

        Raises:
            Busy: so it is.
        """
        if self._waiting >= self._most:
            raise Busy(f"{self._waiting} requests are waiting", "ask again later")

    async def run(self, work: Callable[[CancelToken], _Result]) -> _Result:
        """What ``work`` returns, called in the thread when its turn comes.

        It gets a token that is set when the task that waits for it is cancelled, or the server ends. What has not
        begun then never begins.

        Raises:
            Busy: too many wait already.
            Exception: what ``work`` raises.
        """
        self.check_room()
        token = CancelToken()
        self._waiting += 1
        self._tokens.add(token)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, token)
        except asyncio.CancelledError:
            token.cancel()
            raise
        finally:
            self._tokens.discard(token)
            self._waiting -= 1

    def model(self, name: str) -> PipelineModel:
        """A served pipeline, its model loaded. Only for use in the thread.

        Raises:
            UserError: it is none that answers a question about pictures.
            NodeError: the model cannot be loaded.
        """
        from fopru_graph.pipeline_model import PipelineModel

        if name not in self._models:
            self._models[name] = PipelineModel(self.pipelines[name], self.loaded)
        return self._models[name]

    def free(self) -> None:
        """Give the memory of all models back; the next question loads its own anew. Only for use in the thread."""
        self._models.clear()
        self.loaded.clear()

    async def close(self) -> None:
        """End what runs, and wait for that."""
        for token in self._tokens:
            token.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
