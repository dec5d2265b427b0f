"""A cell of a sweep that evaluates nothing: ``fake_cell.py OUT LABEL SECONDS CODE``. Tells that it began and ended,
and of a clash where another process is at the same cell. With code 3 half of its samples failed, with 3all all of them.
Its summary has the identity of `IDENTITY`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

IDENTITY = "made by a fake cell"


def tell(out: Path, word: str, label: str) -> None:
    with (out / "trace").open("a") as stream:  # one short write: never torn, whoever writes beside it
        stream.write(f"{word} {label} {os.getpid()}\n")


def main(out: str, label: str, seconds: str, code: str) -> int:
    folder = Path(out)
    tell(folder, "begin", label)
    with (folder / f"{label}.lock").open("w") as lock:
        return work(folder, label, float(seconds), code, lock)


def work(folder: Path, label: str, seconds: float, code: str, lock: TextIO) -> int:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell(folder, "clash", label)
    time.sleep(seconds)
    (folder / label).mkdir(exist_ok=True)
    if code in ("0", "3", "3all"):
        n, errors = {"0": (4, 0), "3": (2, 2), "3all": (0, 4)}[code]
        common = {"message": "generate: no memory", "count": errors}
        figures = {"accuracy": 0.5 if n else None, "n": n, "errors": errors, "common_error": common if errors else None}
        (folder / label / "summary.json").write_text(json.dumps(figures | {"identity": IDENTITY}))
    print(f"{label} says goodbye with {code}")
    tell(folder, "end", label)
    return int(code[0])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
