"""Which part of the samples this process takes when ``accelerate launch`` (or torchrun) started several processes.

The ranks exchange no tensors; they only meet at barriers. If one fails it ends, and the launcher ends the others.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

_TIMEOUT = timedelta(days=30)  # a barrier waits for the slowest rank; the launcher notices one that died
_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))  # of the environment, and their defaults


@dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``world`` processes, and number ``local`` of those on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Ranks:
        """Read what the launcher has set; without a launcher this process is the only one."""
        rank, world, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
        return cls(rank, world, local)

    @property
    def first(self) -> bool:
        """Whether this is the process that merges and writes the results of all."""
        return self.rank == 0

    def device(self) -> str | None:
        """The GPU of this process, e.g. ``cuda:1``; None if there is a single process or no GPU."""
        import torch

        count = torch.cuda.device_count() if self.world > 1 else 0
        return f"cuda:{self.local % count}" if count else None

    def barrier(self) -> None:
        """Wait until all processes have arrived here."""
        if self.world == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_TIMEOUT, rank=self.rank, world_size=self.world)
        distributed.barrier()

    def leave(self) -> None:
        """End the communication between the processes, so that the launcher sees a clean end."""
        if self.world > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()
