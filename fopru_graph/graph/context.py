"""The engine's services to a running node: progress, streamed text, cancellation, the output folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from fopru_graph.graph.errors import Cancelled
from fopru_graph.graph.events import Event, NodeProgress, NodeText


class CancelToken(threading.Event):
    """Asks every run that holds it to stop. Any thread or signal handler may set it; ``clear`` it for the next run."""

    def cancel(self) -> None:
        """Ask the runs to stop."""
        self.set()

    def is_cancelled(self) -> bool:
        """Whether the runs were asked to stop."""
        return self.is_set()


class Context:
    """Given to a node's ``run`` for the parameter annotated with this class; without a run its methods do nothing.

    ``key`` is the node's cache key: equal keys mean equal inputs, across runs and processes.
    """

    def __init__(
        self,
        node: str = "",
        *,
        out: Path | None = None,
        emit: Callable[[Event], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        key: str = "",
    ) -> None:
        self.node = node
        self.key = key
        self.out = out
        self._emit = emit
        self._cancelled = cancelled

    def progress(self, i: int, n: int, text: str = "") -> None:
        """Report that ``i`` of ``n`` steps are done."""
        if self._emit:
            self._emit(NodeProgress(self.node, i, n, text))

    def text(self, chunk: str) -> None:
        """Stream a piece of text, e.g. the next words of an answer."""
        if self._emit:
            self._emit(NodeText(self.node, chunk))

    def cancelled(self) -> bool:
        """Whether the run was asked to stop."""
        return self._cancelled is not None and self._cancelled()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the run was asked to stop."""
        if self.cancelled():
            raise Cancelled

    def output_path(self, file: str) -> Path:
        """The path to write ``file`` to: in the run's output folder, made if needed, else in the working directory."""
        folder = self.out or Path()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / file
