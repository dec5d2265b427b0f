"""Stock transformers: its ``generate``, which cannot prune."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.peers.workers.checkpoint import Checkpoint
from benchmarks.peers.workers.protocol import Pixels, Times, from_stamps, serve


class _Clock:
    """A streamer of transformers that keeps the times."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.stamps.append(time.perf_counter())

    def end(self) -> None: ...


class Stock:
    """See `protocol.Peer`."""

    packages = ("transformers", "torch")
    note = ""

    def __init__(self, folder: Path, weights: str, threads: int) -> None:
        self._checkpoint = Checkpoint(folder, weights, threads, "sdpa")

    @torch.inference_mode()
    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        """See `protocol.Peer`."""
        clock, begin = _Clock(), time.perf_counter()
        inputs = self._checkpoint.inputs(picture)
        self._checkpoint.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, streamer=clock)
        return from_stamps(begin, clock.stamps[1:])  # the prompt comes first


if __name__ == "__main__":
    serve(Stock)
