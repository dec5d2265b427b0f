"""Running one cell: every sample once, a row for each, whatever happens in between."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.evaluation.gallery import draw_gallery
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.evaluation.task import RecordError, Records, Task
from fopru_graph.evaluation.variants import Variant
from fopru_graph.graph import NodeError
from fopru_graph.graph.run.record import timestamp
from fopru_graph.pipeline_model import Answer, PipelineModel
from fopru_graph.results.cell import Cell
from fopru_graph.results.schema import FORMAT, Row, Summary
from fopru_graph.results.summary import figures_of


@dataclass
class Progress:
    """How far a cell is: samples done of ``total``, the sum of the scores of those that were scored, and errors."""

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

    ``records`` are the first samples of ``task`` that are asked for, ``limit`` their number as it was given, ``folder``
    where the rows go. ``retry``: samples that failed before are run again.
    """

    variant: Variant
    task: Task
    records: Records
    model: PipelineModel
    folder: Path
    ranks: Ranks = Ranks()
    limit: int | None = None
    retry: bool = False

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any] | None:
        """Run what is missing, merge the rows and write the summary, which is returned on the first rank.

        Raises:
            UserError: the folder holds something else, or cannot be written.
            Cancelled: it was asked to stop; the rows made until then are kept.
        """
        cell = Cell(self.folder, self.identity(), len(self.records))
        if self.ranks.first:
            cell.claim()
        self.ranks.barrier()
        cell.scan()
        self._run_missing(cell, on_progress)
        self.ranks.barrier()
        summary = self._finish(cell) if self.ranks.first else None
        self.ranks.barrier()  # from here on every rank can read the merged file
        return summary

    def _finish(self, cell: Cell) -> dict[str, Any]:
        cell.scan()
        if cell.done != len(self.records):
            raise UserError(
                f"{self.folder}: {cell.done} of {len(self.records)} samples have a row", "run the same command again"
            )
        cell.merge()
        figures = figures_of(cell.rows(), self.task.metrics)
        not_drawn = draw_gallery(self, self.folder)
        summary = Summary(**self._heading(), limit=self.limit, **figures, not_drawn=not_drawn).model_dump(mode="json")
        cell.write_summary(summary)  # last: where it is, all of the cell is
        return summary

    def _run_missing(self, cell: Cell, on_progress: Callable[[Progress], None] | None) -> None:
        todo = cell.missing(self.ranks.rank, self.ranks.world, self.retry)
        own = len(range(self.ranks.rank, len(self.records), self.ranks.world))
        progress = Progress(own, done=own - len(todo))
        if not todo:
            return
        with cell.shard(self.ranks.rank) as shard:
            for index in todo:
                row = self.sample(index)
                shard.append(row.model_dump())
                progress.add(row)
                if on_progress is not None:
                    on_progress(progress)

    def sample(self, index: int) -> Row:
        """The row of one sample. What is wrong with it becomes its error; it never becomes an answer.

        Raises:
            Cancelled: it was asked to stop.
        """
        begin = time.perf_counter()
        head = {"index": index, "id": self.records.key(index)}
        try:
            record = self.records.read(index)
            pictures = self.records.images(index, record)
            answer = self.model.answer(self.task.prompt(record), pictures, self.task.max_new_tokens)
            score = self.task.score(answer.text, record)
        except RecordError as error:
            return Row(**head, status="error", error=str(error))
        except NodeError as error:
            return Row(**head, status="error", error=f"{error.node}: {error.cause}")
        total_ms = (time.perf_counter() - begin) * 1e3
        return Row(
            **head,
            type=self.task.kind(record),
            picture=pictures[0][0] if pictures else "",
            status="ok",
            answer=answer.text,
            score=score.value,
            facts=dict(score.facts),
            **_counts(answer),
            timing=_timing(answer, total_ms, self.ranks.rank),
        )

    def identity(self) -> dict[str, Any]:
        """What the rows are of, and how they came about; the former must not change between runs into one folder."""
        from fopru_graph.measure.machine import machine_facts

        handle = self.model.handle
        machine = machine_facts(handle.device, handle.dtype)
        return self._heading() | {
            "format": FORMAT,
            "file": self.variant.graph.file,
            "graph": self.variant.graph.canonical(),
            "settings": dict(self.variant.settings),
            "data": {"source": self.records.source, "fingerprint": self.records.fingerprint},
            "weights": _weights(handle.name),
            "dtype": handle.dtype,
            "versions": _versions(machine),
            "machine": machine,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": timestamp(),
        }

    def _heading(self) -> dict[str, Any]:
        return {
            "pipeline": self.variant.pipeline,
            "task": self.task.name,
            "ratio": self.variant.ratio,
            "model": self.model.handle.name,
            "scorer": self.task.scorer,
            "prunes": self.variant.prunes,
        }


def _counts(answer: Answer) -> dict[str, float]:
    """Numbers of tokens and bytes, read from the report of the generating node."""
    report = answer.report
    tokens = report["visual_tokens"]
    return {name: tokens[name] for name in ("encoded", "kept", "final", "layer_average")} | {
        "text_tokens": report["kv_lengths"][0] - report["visual_per_layer"][0] - (report["new_tokens"] - 1),
        "new_tokens": report["new_tokens"],
        "kv_bytes": report["kv_bytes"],
    }


def _timing(answer: Answer, total_ms: float, rank: int) -> dict[str, float | None]:
    return {
        "ttft_ms": None if answer.ttft_ms is None else round(answer.ttft_ms, 3),
        "prefill_ms": round(answer.report["prefill_ms"], 3),
        "total_ms": round(total_ms, 3),
        "rank": rank,
    }


def _weights(name: str) -> list[str]:
    """Names and sizes of a local checkpoint's files; not their times, which copying changes."""
    from fopru_graph.lvlm.loading.checkpoint import fingerprint

    return [entry.rpartition(" ")[0] for entry in fingerprint(name)]


def _versions(machine: dict[str, Any]) -> dict[str, str]:
    import importlib.metadata

    return {
        "fopru_graph": importlib.metadata.version("fopru-graph"),
        **{name: machine[name] for name in ("torch", "transformers", "python")},
    }
