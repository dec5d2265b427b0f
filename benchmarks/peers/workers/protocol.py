"""What every worker is: a process that loads a model and answers requests, a line of JSON in, a line of JSON out.

It imports nothing but numpy, so that it runs in the environment of any peer. ``python -m benchmarks.peers.workers.NAME
FOLDER WEIGHTS THREADS`` says what it loaded in its first line and ends when its input does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SIDE = 672  # pixels of the square picture
VISUAL_TOKENS = 576  # that every model makes of it
PROMPT = "what does the text say ?"
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Times:
    """Milliseconds from the picture's array to the first token, and between tokens; None for an answer of one."""

    ttft_ms: float
    tpot_ms: float | None


class Peer(Protocol):
    """A loaded model."""

    @property
    def packages(self) -> Sequence[str]:
        """The packages whose versions count."""

    @property
    def note(self) -> str:
        """What is unlike the others."""

    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        """Answer `PROMPT` about an RGB picture (H, W, 3) with ``new_tokens`` tokens, ``keep`` the share of visual ones.

        A ``keep`` of 1 prunes nothing.
        """


def from_stamps(begin: float, stamps: Sequence[float]) -> Times:
    """The times of an answer that began at ``begin`` and had its tokens at ``stamps``, in seconds."""
    steps = len(stamps) - 1
    return Times((stamps[0] - begin) * 1e3, (stamps[-1] - stamps[0]) * 1e3 / steps if steps else None)


def serve(load: Callable[[Path, str, int], Peer]) -> None:
    """Load what the command line names and answer until the input ends.

    What the peer prints goes to stderr. After loading, the process is kept on as many cores as it has threads.
    """
    folder, weights, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    peer = load(folder, weights, threads)
    _stay_on(threads)
    versions = {name: importlib.metadata.version(name) for name in peer.packages}
    print(json.dumps({"versions": versions, "note": peer.note}), file=out, flush=True)
    for number, line in enumerate(sys.stdin):
        print(json.dumps(_reply(peer, number, json.loads(line))), file=out, flush=True)


def _reply(peer: Peer, number: int, request: dict[str, Any]) -> dict[str, Any]:
    """The times of an answer, or the error.

    All peers get the same pictures but for a pixel that tells a process's requests apart: some remember what they have
    encoded.
    """
    picture = np.random.default_rng(request["picture"]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    picture[0, 0] = divmod(number, 256) + (0,)
    if request["peak"]:
        _reset_peak()
    begin = time.perf_counter()
    try:
        times = peer.answer(picture, request["new_tokens"], request["keep"])
    except Exception as error:  # whatever a peer raises is told in the table
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    wall_ms = (time.perf_counter() - begin) * 1e3
    return {"ttft_ms": times.ttft_ms, "tpot_ms": times.tpot_ms, "wall_ms": wall_ms, "peak_bytes": _peak()}


def _stay_on(threads: int) -> None:
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def _reset_peak() -> None:
    """Give back what the C library holds and start the peak of resident memory again."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
