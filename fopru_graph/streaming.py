"""An answer while it is made: work in a thread of its own, whose pieces are iterated over, with or without asyncio."""

from __future__ import annotations

import asyncio
import collections
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

from fopru_graph.graph import Cancelled, CancelToken

if TYPE_CHECKING:
    from fopru_graph.answer import Answer

Work = Callable[[Callable[[str], None], CancelToken], "Answer"]


class Stream:
    """The pieces of an answer, all joined its text: ``for piece in stream`` or ``async for piece in stream``.

    The work has begun when the stream is made. It ends early when nobody reads on: when a loop over a stream that
    nothing else holds is left, when the task that waits for a piece is cancelled, by Ctrl-C, after `close`, and at the
    end of a ``with`` block. What goes wrong in it is raised where the next piece is asked for.

    Args:
        work: is called in a thread, with a function that takes pieces and a token that says when to end early.
    """

    def __init__(self, work: Work) -> None:
        self._pieces, self._cancel = _Pieces(), _Wanted()
        self._answer: Answer | None = None
        self._closed = weakref.finalize(self, self._cancel.cancel)
        threading.Thread(target=_run, args=(work, self._pieces, self._cancel), name="fopru-graph answer").start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            piece = self._taken(self._pieces.get())
        except BaseException:  # Ctrl-C while waiting, too
            self.close()
            raise
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            piece = self._taken(await self._pieces.wait())
        except BaseException:  # that the task was cancelled, too
            self.close()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The whole answer with its figures, once the work is done; it waits for that, and the pieces are gone then.

        Raises:
            Cancelled: the stream was closed before its end.
            Exception: whatever the work raised.
        """
        for _ in self:
            pass
        if self._answer is None:
            raise Cancelled
        return self._answer

    def close(self) -> None:
        """End the work early; iterating ends, too."""
        self._closed()

    async def aclose(self) -> None:
        """As `close`, for ``contextlib.aclosing``."""
        self.close()

    def _taken(self, piece: str | Answer | BaseException) -> str | None:
        """The next piece; None at the end."""
        if isinstance(piece, str):
            return piece if self._closed.alive else None
        self._pieces.put(piece)  # whoever asks again gets the same
        if not isinstance(piece, BaseException):
            self._answer = piece
        elif self._closed.alive or not isinstance(piece, Cancelled):
            raise piece
        return None


class _Wanted(CancelToken):
    """Cancelled by whoever reads, and by the end of the program, which must not wait for an answer nobody gets."""

    def is_cancelled(self) -> bool:
        return super().is_cancelled() or not threading.main_thread().is_alive()


class _Pieces:
    """A queue that can be waited for in a thread and in an event loop."""

    def __init__(self) -> None:
        self._items: collections.deque[str | Answer | BaseException] = collections.deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None

    def put(self, item: str | Answer | BaseException) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def get(self) -> str | Answer | BaseException:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            return self._items.popleft()

    async def wait(self) -> str | Answer | BaseException:
        loop = asyncio.get_running_loop()
        while True:
            arrived = asyncio.Event()
            with self._changed:
                if self._items:
                    return self._items.popleft()
                self._wake = partial(loop.call_soon_threadsafe, arrived.set)
            await arrived.wait()


def _run(work: Work, pieces: _Pieces, cancel: CancelToken) -> None:
    """Holds on to nothing of the stream, which ends the work when it is forgotten."""
    try:
        pieces.put(work(pieces.put, cancel))
    except BaseException as error:
        pieces.put(error)
