"""A worker without a model: its times follow from the request. Argument: what goes wrong, if anything."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from benchmarks.peers.workers.protocol import Pixels, Times, serve


class Toy:
    packages = ("numpy",)
    note = "a toy"

    def __init__(self, folder: Path, weights: str, threads: int) -> None:
        self._wrong = folder.name
        self._seen: set[bytes] = set()
        print("loaded", threads)  # no reply: it must not be taken for one
        if self._wrong == "no-model":
            raise FileNotFoundError("there is no model")

    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        if self._wrong == "refuses" and keep < 1:
            raise ValueError("it cannot\nprune")
        if self._wrong == "dies":
            os.kill(os.getpid(), signal.SIGFPE)
        content = picture.tobytes()
        assert content not in self._seen
        self._seen.add(content)
        return Times(100 * keep, 10.0 if new_tokens > 1 else None)


if __name__ == "__main__":
    print("before", file=sys.stderr)
    serve(Toy)
