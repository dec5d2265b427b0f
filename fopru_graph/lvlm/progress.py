"""How far loading and encoding are: weights and layers are counted while stock code loads and runs them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch
from transformers.utils import logging

Item = TypeVar("Item")
Progress = Callable[[int, int], None]  # called with how many of how many are done, from 0 on


def counted(items: Collection[Item], progress: Progress | None) -> Iterator[Item]:
    """The items one after another; each is done when the next is asked for."""
    if progress is None:
        yield from items
        return
    progress(0, len(items))
    for index, item in enumerate(items):
        yield item
        progress(index + 1, len(items))


@contextlib.contextmanager
def layers_counted(
    layers: Sequence[torch.nn.Module], progress: Progress | None, part: int = 0, parts: int = 1
) -> Iterator[None]:
    """Inside the block, in which they run once, layers are counted as they begin; of ``parts`` such runs in all.

    On a GPU the host is ahead of the device; nothing waits for it here. No hook is left when the block ends.
    """
    if progress is None:
        yield
        return
    before, count = part * len(layers), parts * len(layers)

    def begins(_layer: torch.nn.Module, _inputs: Any, index: int) -> None:
        progress(before + index, count)

    with contextlib.ExitStack() as hooks:
        for index, layer in enumerate(layers):
            hooks.callback(layer.register_forward_pre_hook(partial(begins, index=index)).remove)
        yield
    progress(before + len(layers), count)


class WeightsCounted:
    """Inside the ``with`` block the weights that transformers loads in this thread are counted.

    They are those of the bar that transformers makes for itself, shown or not. A version of transformers without the
    hook for bars counts none.

    Attributes:
        stopped: what ``progress`` raised, which may come out of transformers like an error of its own.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.stopped: Exception | None = None
        self._progress, self._thread = progress, threading.get_ident()
        self._set_hook: Any = getattr(logging, "set_tqdm_hook", None) if progress is not None else None

    def __enter__(self) -> None:
        if self._set_hook is not None:
            self._before = self._set_hook(self._bar)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._set_hook is not None:
            present = self._set_hook(self._before)
            if present != self._bar:  # somebody else's, set meanwhile: it is theirs to take away
                self._set_hook(present)

    def _bar(self, make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The bar that transformers asks for, over items that are counted."""
        if args and isinstance(args[0], Collection) and threading.get_ident() == self._thread:
            options = {"total": len(args[0])} | options
            args = (counted(args[0], self._tell), *args[1:])
        return make(*args, **options) if self._before is None else self._before(make, args, options)

    def _tell(self, done: int, count: int) -> None:
        assert self._progress is not None
        try:
            self._progress(done, count)
        except Exception as error:
            self.stopped = error
            raise
