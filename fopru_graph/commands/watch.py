"""``fopru-graph run --watch``: again whenever a file changes, in one process, so that what did not change is kept.

Times and sizes of a handful of files are looked at a few times a second: that costs nothing, needs no further package,
and sees changes on network and container mounts too, of which the system tells no listener.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, PipelineError, Registry, expand
from fopru_graph.graph.declare.packs import pack_files, python_files
from fopru_graph.terminal.console import say, show_failure
from fopru_graph.terminal.stdout import stdout

_PAUSE = 0.2  # seconds between two looks
_State = dict[Path, tuple[int, int] | None]


def watch(file: Path, packs: Sequence[Path], run: Callable[[], int]) -> int:
    """Call ``run`` now and after every change of a pipeline's file, its sub-graphs' or its packs', until Ctrl-C.

    What ``run`` reports as an exit, or refuses with a `UserError`, ends only that run. With ``--json`` every run writes
    an object. Returns 130, as what Ctrl-C ends, or 1 where stdout cannot be written any more.
    """
    before_watching = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start us with it ignored
    try:
        while True:
            pipelines = [file, *_blocks(file)]
            before = _look(pipelines, packs)
            code = _attempt(run)
            if code == 130 or stdout.failure is not None:  # nobody reads what comes next
                return code
            say((f"watching {len(before)} files; Ctrl-C ends", "dim"))
            after = _wait(before, pipelines, packs)
            changed = [str(path) for path in {**before, **after} if before.get(path) != after.get(path)]
            say((f"changed: {', '.join(changed)}", "dim"))
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, before_watching)


def _attempt(run: Callable[[], int]) -> int:
    stdout.begin()
    try:
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except UserError as error:
        show_failure(error.message, error.hint)
        code = 1
    return stdout.finish(code)


def _wait(before: _State, pipelines: Sequence[Path], packs: Sequence[Path]) -> _State:
    """The state after a change, when an editor has finished: two looks find the same."""
    seen = before
    while True:
        time.sleep(_PAUSE)
        now = _look(pipelines, packs)
        if now == seen and now != before:
            return now
        seen = now


def _look(pipelines: Sequence[Path], packs: Sequence[Path]) -> _State:
    """Time and size of every file; None for one that is not there."""
    paths = list(pipelines)
    for pack in packs:
        try:
            paths += [source for file in pack_files(pack) for source in python_files(file)]
        except OSError:  # it is being replaced
            paths.append(pack)
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        state = os.stat(path)
        return state.st_mtime_ns, state.st_size
    return None


def _blocks(file: Path) -> list[Path]:
    """The files of sub-graphs, as far as the pipeline can be read."""
    try:
        graph = Graph.load(file, Registry())
        return [graph.folder / path for path in expand(graph)[0].blocks] if graph.folder else []
    except (PipelineError, OSError):
        return []
