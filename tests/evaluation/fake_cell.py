"""A cell of a sweep that evaluates nothing: ``fake_cell.py OUT LABEL SECONDS CODE``. Tells that it began and ended."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def tell(out: Path, word: str, label: str) -> None:
    with (out / "trace").open("a") as stream:  # one short write: never torn, whoever writes beside it
        stream.write(f"{word} {label} {os.getpid()}\n")


def main(out: str, label: str, seconds: str, code: str) -> int:
    folder = Path(out)
    tell(folder, "begin", label)
    time.sleep(float(seconds))
    (folder / label).mkdir(exist_ok=True)
    if code in ("0", "3"):
        (folder / label / "summary.json").write_text('{"accuracy": 0.5, "n": 2, "errors": 0}')
    print(f"{label} says goodbye with {code}")
    tell(folder, "end", label)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
