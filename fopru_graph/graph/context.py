"""The engine's services to a running node: progress, streamed text, cancellation, the output folder."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph.errors import Cancelled
from fopru_graph.graph.events import Event, NodeProgress, NodeText

RECORD = "run.json"  # what `fopru-graph run` leaves in the output folder beside the files of nodes


class CancelToken(threading.Event):
    """Asks every run that holds it to stop. Any thread or signal handler may set it; ``clear`` it for the next run.

    ``abrupt``: what runs now cannot be asked, see `abruptly`.
    """

    abrupt = False

    @contextlib.contextmanager
    def abruptly(self) -> Iterator[None]:
        """For work that takes long and calls nothing of ours, such as importing and loading: Ctrl-C ends it at once.

        Whoever handles the signal cancels and raises KeyboardInterrupt, which becomes `Cancelled` here.
        """
        self.abrupt = True
        try:
            yield
        except KeyboardInterrupt:
            if self.is_cancelled():
                raise Cancelled from None
            raise
        finally:
            self.abrupt = False

    def cancel(self) -> None:
        """Ask the runs to stop."""
        self.set()

    def is_cancelled(self) -> bool:
        """Whether the runs were asked to stop."""
        return self.is_set()


class Context:
    """Given to a node's ``run`` for the parameter annotated with this class; without a run its methods do nothing.

    ``key`` is the node's cache key: equal keys mean equal inputs, across runs and processes. ``pipeline`` is the name
    of the pipeline that runs. ``writers`` holds the nodes of a run by the files that they write.
    """

    def __init__(
        self,
        node: str = "",
        *,
        out: Path | None = None,
        emit: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
        key: str = "",
        writers: dict[str, str] | None = None,
        pipeline: str = "",
        warn: Callable[[str, str], None] | None = None,
    ) -> None:
        self.node = node
        self.key = key
        self.pipeline = pipeline
        self.out = out
        self._emit = emit
        self._warn = warn
        self._cancel = cancel or CancelToken()
        self._writers = {} if writers is None else writers

    def progress(self, i: int, n: int, text: str = "") -> None:
        """Report that ``i`` of ``n`` steps are done."""
        if self._emit:
            self._emit(NodeProgress(self.node, i, n, text))

    def text(self, chunk: str) -> None:
        """Stream a piece of text, e.g. the next words of an answer."""
        if self._emit:
            self._emit(NodeText(self.node, chunk))

    def warn(self, message: str) -> None:
        """Tell the user a sentence that matters for the result, which holds it too; the run goes on."""
        if self._warn:
            self._warn(self.node, message)

    def cancelled(self) -> bool:
        """Whether the run was asked to stop."""
        return self._cancel.is_cancelled()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the run was asked to stop."""
        if self.cancelled():
            raise Cancelled

    def abruptly(self) -> AbstractContextManager[None]:
        """A block that Ctrl-C ends at once, see `CancelToken.abruptly`."""
        return self._cancel.abruptly()

    def output_path(self, file: str) -> Path:
        """The path to write ``file`` to: in the run's output folder, made if needed, else in the working directory.

        It is named by `output_name`. Raises `UserError` if another node of the run writes that file.
        """
        name = output_name(self.node, file)
        writer = self._writers.setdefault(file_key(name), self.node)
        if writer != self.node or file_key(name) == RECORD:
            what = "is the run's record" if file_key(name) == RECORD else f"was written by {writer}"
            raise UserError(f"{name} {what}", "give the file another name")
        folder = self.out or Path()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def output_name(node: str, file: str) -> str:
    """The name in the output folder: a node of a sub-graph puts the sub-graph's before it, ``a/show``: a.kept.png."""
    path = Path(file)
    return str(path.with_name(".".join([*node.split("/")[:-1], path.name])))


def file_key(name: str) -> str:
    """Equal for names that are one file: some file systems do not tell ``A.png`` from ``a.png``."""
    return os.path.normpath(name).casefold()
