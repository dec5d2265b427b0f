"""Which part of the samples this process takes when ``accelerate launch`` (or torchrun) started several processes.

The ranks exchange no tensors; they only meet at barriers. If one fails it ends, and the launcher ends the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled
from fopru_graph.terminal.console import say

_UNSET = "if no launcher started this process: unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT"
_APART = 600.0  # seconds between the starts of two ranks
_SLOWEST = 7 * 86400.0  # seconds that a barrier waits for the slowest rank; the launcher notices one that died
_SILENT = 5.0  # seconds of waiting before it is said


@dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``world`` processes, and number ``local`` of those on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Ranks:
        """Read what the launcher has set; without a launcher this process is the only one.

        Raises:
            UserError: the variables contradict each other, or one is missing, so that no launcher can have set them.
        """
        rank, world, local = map(_number, ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        several = (world or 1) > 1
        if not 0 <= (rank or 0) < (world or 1) or (several and rank is None):
            rank_text, world_text = ("not set" if number is None else number for number in (rank, world))
            raise UserError(f"the environment says that RANK is {rank_text}, but WORLD_SIZE is {world_text}", _UNSET)
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if several and not os.environ.get(name):
                raise UserError(f"the environment says that WORLD_SIZE is {world}, but {name} is not set", _UNSET)
        return cls(rank or 0, world or 1, local or 0) if several else cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that merges and writes the results of all."""
        return self.rank == 0

    def device(self) -> str | None:
        """The GPU of this process, e.g. ``cuda:1``; None if there is a single process or no GPU."""
        import torch

        count = torch.cuda.device_count() if self.world > 1 else 0
        return f"cuda:{self.local % count}" if count else None

    def meet(self) -> None:
        """Find the other processes. Costs nothing once they are found.

        Raises:
            UserError: they do not come.
            Cancelled: Ctrl-C was pressed.
        """
        if self.world == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            options = {"timeout": timedelta(seconds=_SLOWEST), "rank": self.rank, "world_size": self.world}
            self._wait(lambda: distributed.init_process_group("gloo", **options), _APART)

    def barrier(self) -> None:
        """Wait until all processes have arrived here; raises what `meet` raises."""
        if self.world == 1:
            return
        from torch import distributed

        self.meet()
        self._wait(distributed.barrier, _SLOWEST)

    def leave(self) -> None:
        """End the communication between the processes, so that the launcher sees a clean end."""
        if self.world > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()

    def _wait(self, arrive: Callable[[], Any], patience: float) -> None:
        """Call what returns once all are there. In a thread, because torch hears no signals while it waits."""
        failures: list[Exception] = []

        def run() -> None:
            try:
                arrive()
            except Exception as error:
                failures.append(error)

        who = f"rank {self.rank} of {self.world}"
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        begin, told = time.monotonic(), False
        with _interrupt_raises():
            while thread.is_alive():
                thread.join(0.2)
                waited = time.monotonic() - begin
                if waited > _SILENT and not told:
                    told = True
                    say(f"{who} waits for the others, which meet at {where}")
                if waited > patience:
                    raise UserError(f"{who} waited {waited:.0f} s for the others, which meet at {where}", _UNSET)
        if failures:
            raise UserError(f"{who} has lost the others: {failures[0]}", "see what they say") from failures[0]


def _number(name: str) -> int | None:
    """A whole number from the environment; None if there is none."""
    text = os.environ.get(name, "").strip()
    try:
        return int(text) if text else None
    except ValueError:
        raise UserError(f"the environment says that {name} is {text!r}, which is no number", _UNSET) from None


@contextlib.contextmanager
def _interrupt_raises() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
