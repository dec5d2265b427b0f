"""Runs one command, and ends it with all its children when the process that started it is gone, for whatever reason.

Started by `process` as a file of its own, in a process group of its own, with a pipe as its standard input that its
parent never writes to: the pipe ends when the parent does, by kill -9 too. Only the standard library is needed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command of the arguments; its exit code, or 128 and the number of the signal that ended it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the whole group gets them; the command decides when it ends
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=False)  # it shares the locks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
