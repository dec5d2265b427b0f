"""Which part of the samples this process takes, when ``accelerate launch`` (or torchrun) started several.

No tensors are exchanged. A rank that fails ends, upon which the launcher ends the others; they meet only at barriers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

_PATIENCE = timedelta(days=30)  # the slowest rank decides; a dead one is noticed by the launcher, not by a time limit


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``world``, and ``local`` of those on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Ranks:
        """As the launcher says; alone where there is none."""
        rank, world, local = (int(os.environ.get(name, default)) for name, default in _NAMES)
        return cls(rank, world, local)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what all have made."""
        return self.rank == 0

    def device(self) -> str | None:
        """The GPU that is this process's own; None for one process, or without GPUs."""
        import torch

        count = torch.cuda.device_count() if self.world > 1 else 0
        return f"cuda:{self.local % count}" if count else None

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_PATIENCE, rank=self.rank, world_size=self.world)
        distributed.barrier()

    def leave(self) -> None:
        """Let the launcher see a clean end."""
        if self.world > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


_NAMES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
