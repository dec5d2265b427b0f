"""A map without a model, and what a run of it needs. As a program, a worker of such a run.

A row's column ``path`` says what becomes of it: ``broken…`` has an error, ``killer…`` kills the process, ``lost…``
loses the device, ``wait…`` takes a second; else the answer is what was read. Each row that is begun is told in a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fopru_graph.graph import NodeError
from fopru_graph.scale import worker
from fopru_graph.scale.folder import MapFolder
from fopru_graph.scale.plan import Job, make_plan
from fopru_graph.scale.ray import PartMaker
from fopru_graph.scale.table import open_table
from fopru_graph.scale.watch import Run

IDENTITY = {"key": "of a toy", "data": "toys"}
ROOT = Path(__file__).resolve().parents[2]


class ToyMap:
    def __init__(self, trace: str | None = None, read: dict[str, str] | None = None, pause: float = 0.0) -> None:
        self.read, self.write = read or {"image": "path"}, ["text"]
        self._trace, self._pause = trace, pause

    def load(self) -> None:
        pass

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made: dict[str, list[Any]] = {"text": [], "error": []}
        for path in map(str, batch["path"]):
            if self._trace:
                with open(self._trace, "a") as stream:
                    stream.write(f"{path} {len(batch['path'])}\n")
            if path.startswith("killer"):
                os.kill(os.getpid(), signal.SIGKILL)
            if path.startswith("lost"):
                raise NodeError("generate", "LLMGenerate", None, RuntimeError("the device is lost"), {}, [])
            time.sleep(1 if path.startswith("wait") else self._pause)
            broken = path.startswith("broken")
            made["text"].append(None if broken else f"seen {path}")
            made["error"].append("it is broken" if broken else None)
        return made


class ToyMaker(PartMaker):
    """An actor whose process knows toys."""

    def __init__(self, run: str) -> None:
        as_toy()
        super().__init__(run)


def toy_run(folder: Path, paths: list[Any], name: str = "run", **options: Any) -> Run:
    """A planned run over JSON lines; its driver's lock is released, so that a test may begin several.

    ``options`` are those of `Job`, ``pause`` for each row, and whether there is a ``trace``.
    """
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    arguments = {"read": {"image": "path"}, "pause": options.pop("pause", 0.0)}
    if options.pop("trace", True):
        arguments["trace"] = str(folder / "trace")
    job = Job(str(table), "path", str(folder / "out"), str(folder), arguments, **{"part_rows": 4} | options)
    results = MapFolder(Path(job.into))
    with results.driven(name, lambda _: None) as path:
        results.claim(IDENTITY)
        return Run(path, results, job, make_plan(path, job, open_table(table), results))


def as_toy() -> None:
    """Let workers of this process make toys."""
    worker.PipelineMap = ToyMap  # type: ignore[assignment,misc]
    worker.identity_of = lambda mapped, job: IDENTITY  # type: ignore[assignment]


def results(folder: MapFolder) -> list[tuple[str, str | None, str | None]]:
    """Path, text and error of all rows of all parts, in the order of the files."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(path).to_pylist() for path in folder.parts().values()]
    return [(row["path"], row["text"], row["error"]) for table in tables for row in table]


def begun(run: Run) -> list[str]:
    """What was begun, in its order."""
    trace = Path(run.job.arguments["trace"])
    return [line.split()[0] for line in trace.read_text().splitlines()] if trace.exists() else []


if __name__ == "__main__":
    as_toy()
    sys.exit(worker.main())
