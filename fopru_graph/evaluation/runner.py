"""The runner of one cell (a configuration on a task): every sample once, one row each, also after interruptions."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fopru_graph.answering import answering_plan
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration
from fopru_graph.evaluation.pictures import draw_gallery
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.evaluation.rows import Samples
from fopru_graph.evaluation.task import Records, Task
from fopru_graph.graph import Graph
from fopru_graph.graph.run.record import timestamp
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.results.cell import Cell
from fopru_graph.results.identity import cell_identity, summary_identity
from fopru_graph.results.schema import FORMAT, Row, Summary, encodable
from fopru_graph.results.summary import figures_of


@dataclass
class Progress:
    """How far a cell is: samples ``done`` of ``total``, the sum of the scores of those ``scored``, and errors."""

    total: int
    done: int = 0
    scored: int = 0
    score: float = 0.0
    errors: int = 0

    def add(self, row: Row) -> None:
        """Count one row."""
        self.done += 1
        if row.score is not None:
            self.scored += 1
            self.score += row.score
        else:
            self.errors += 1


@dataclass(frozen=True, eq=False)
class CellRun:
    """One cell, ready to run.

    Args:
        configuration: the pipeline at its retention ratio.
        task: the benchmark.
        records: the samples of ``task`` to run, after ``limit``.
        model: ``configuration`` with its model loaded.
        folder: where the rows go.
        ranks: the part of the samples that this process takes.
        limit: ``--limit`` as it was given; it stands in the summary.
        retry: run samples again that failed before.
        replace: remove results of another configuration from the folder.
        batch_size: samples that are answered together at most. Rows do not follow from it.
    """

    configuration: Configuration
    task: Task
    records: Records
    model: PipelineModel
    folder: Path
    ranks: Ranks = Ranks()
    limit: int | None = None
    retry: bool = False
    replace: bool = False
    batch_size: int = 1

    @cached_property
    def asked(self) -> Task:
        """The task as it is put to the model."""
        return self.task.asked_of(self.model.handle)

    @cached_property
    def samples(self) -> Samples:
        """Its samples, which become rows."""
        return Samples(self.asked, self.records, self.model, self.ranks.rank, self.batch_size)

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any] | None:
        """Run the missing samples, merge all rows and write the summary; returns it on the first rank, else None.

        Raises:
            UserError: the folder holds results of another configuration, or cannot be written.
            Cancelled: the run was cancelled; the rows made until then are kept.
        """
        identity = self.identity()
        cell = Cell(self.folder, identity, len(self.records), self.records.picture_files)
        if self.ranks.first:
            cell.claim(self.replace)
        self.ranks.barrier()
        cell.scan()
        self._run_missing(cell, on_progress)
        self.ranks.barrier()
        summary = self._finish(cell, identity["identity"]) if self.ranks.first else None
        self.ranks.barrier()  # from here on every rank can read the merged file
        return summary

    def _finish(self, cell: Cell, identity: dict[str, Any]) -> dict[str, Any]:
        cell.scan()
        if cell.done != len(self.records):
            raise UserError(
                f"{self.folder}: {cell.done} of {len(self.records)} samples have a row", "run the same command again"
            )
        cell.merge()
        figures = figures_of(cell.rows(), self.asked.metrics)
        not_drawn = draw_gallery(self, self.folder)
        files = (row["picture_files"] for row in cell.rows())  # those of now: `scan` has compared them
        about = {"limit": self.limit, "not_drawn": not_drawn, "identity": summary_identity(identity, files)}
        summary = Summary(**self._heading(), **figures, **encodable(about)).model_dump(mode="json")
        cell.write_summary(summary)  # last: where it is, all of the cell is
        return summary

    def _run_missing(self, cell: Cell, on_progress: Callable[[Progress], None] | None) -> None:
        todo = cell.missing(self.ranks.rank, self.ranks.world, self.retry)
        count = len(range(self.ranks.rank, len(self.records), self.ranks.world))
        progress = Progress(count, done=count - len(todo))
        if not todo:
            return
        with cell.shard(self.ranks.rank) as shard:
            for row in self.samples.rows(todo):
                shard.append(row.model_dump())
                progress.add(row)
                if on_progress is not None:
                    on_progress(progress)

    def identity(self) -> dict[str, Any]:
        """What the rows are results of, and how they were made. Only ``identity`` must stay the same in a folder."""
        from fopru_graph.measure.machine import machine_facts

        handle = self.model.handle
        machine = machine_facts(handle.device, handle.dtype)
        return self._heading() | {
            "format": FORMAT,
            "identity": identity_of(self.configuration.graph, self.task, self.records),
            "file": self.configuration.graph.file,
            "graph": self.configuration.graph.canonical(),
            "settings": dict(self.configuration.settings),
            "data": {"source": self.records.source, "fingerprint": self.records.fingerprint},
            "dtype": handle.dtype,
            "versions": _versions(machine),
            "machine": machine,
            "command": _command(),
            "cwd": str(Path.cwd()),
            "started": timestamp(),
        }

    def _heading(self) -> dict[str, Any]:
        return {
            "pipeline": self.configuration.pipeline,
            "task": self.task.name,
            "ratio": self.configuration.ratio,
            "model": self.model.handle.name,
            "scorer": self.asked.scorer,
            "prunes": self.configuration.prunes,
        }


def identity_of(graph: Graph, task: Task, records: Records) -> dict[str, Any]:
    """What the rows of a pipeline on a task follow from (`results.identity`). Loads torch, but no model.

    Raises:
        UserError: the pipeline cannot be evaluated.
    """
    plan, target = answering_plan(graph)
    return cell_identity(plan, target, task=task.facts, functions=task.functions, data=records.fingerprint)


def finished_identity(identity: dict[str, Any], records: Records) -> str:
    """The digest in the summary of a finished cell: of its identity, and of the picture files of all its samples."""
    return summary_identity(identity, map(records.picture_files, range(len(records))))


def _command() -> list[str]:
    """This process's command as a person types it; a sweep starts its cells by ``python -m``."""
    program = Path(sys.argv[0]).name
    return ["fopru-graph" if program == "__main__.py" else program, *sys.argv[1:]]


def _versions(machine: dict[str, Any]) -> dict[str, str]:
    return {
        "fopru_graph": importlib.metadata.version("fopru-graph"),
        **{name: machine[name] for name in ("torch", "transformers", "python")},
    }
