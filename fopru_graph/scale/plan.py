"""What a run has to do: the rows that are not in the folder yet, dealt into parts.

A part of rows that were never answered becomes a new file. With ``--retry`` the rows that failed are answered again
part by part, and each of those files is replaced by one with the new rows in it: no row is ever in two files.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.scale.folder import MapFolder, writing
from fopru_graph.scale.parquet import open_parquet
from fopru_graph.scale.rows import Id, Place, Table

_PLAN, _PARTS, _JOB = "plan.parquet", "parts.json", "job.json"


@dataclass(frozen=True)
class Job:
    """What a run is asked to do.

    Args:
        over: the rows to work through.
        key: the column with their ids.
        into: the folder of the results.
        cwd: what relative paths among the pipeline's values begin at.
        arguments: of the `PipelineMap`.
        part_rows, batch_size: rows of a part, and of what the pipeline gets at a time.
        retry: answer rows again that failed.
    """

    over: str
    key: str
    into: str
    cwd: str
    arguments: dict[str, Any]
    part_rows: int = 1000
    batch_size: int = 1
    retry: bool = False

    def save(self, run: Path) -> None:
        """Write it down for the workers of a run."""
        write_atomically(run / _JOB, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, run: Path) -> Job:
        """What the workers of a run are asked to do."""
        return cls(**json.loads((run / _JOB).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Part:
    """A part to make: its place in the plan, the number of its file, its rows, and whether the file is there."""

    index: int
    number: int
    rows: int
    again: bool


@dataclass(frozen=True)
class Plan:
    """The parts that a run makes, and the number of rows in the table, those that are done already included."""

    parts: tuple[Part, ...]
    total: int

    @property
    def todo(self) -> int:
        """The number of rows that the run answers."""
        return sum(part.rows for part in self.parts)

    @classmethod
    def load(cls, run: Path) -> Plan:
        """The plan of a run."""
        stored = json.loads((run / _PARTS).read_text(encoding="utf-8"))
        return cls(tuple(Part(*part) for part in stored["parts"]), stored["total"])


def read_part(run: Path, part: Part) -> list[tuple[Id, Place]]:
    """Ids and places of the rows of a part."""
    rows = open_parquet(run / _PLAN).read_row_group(part.index, use_threads=False).to_pydict()
    return [(id_, Place(*place)) for id_, *place in zip(rows["id"], rows["first"], rows["second"], strict=True)]


def make_plan(run: Path, job: Job, table: Table, folder: MapFolder) -> Plan:
    """Compare the table with the folder and write down what is left to do. Only ids are held in memory.

    Args:
        run: the run's folder.
        job: what is asked for.
        table: the rows.
        folder: where results are.

    Raises:
        UserError: an id is there twice or is none, the table or a part cannot be read, or nothing can be written.
    """
    answered, failed = _known(job, folder)
    taken = set(folder.parts())
    numbers = (number for number in count() if number not in taken)
    again: defaultdict[int, list[tuple[Id, Place]]] = defaultdict(list)
    fresh: list[tuple[Id, Place]] = []
    with writing(run), _Writer(run) as writer:
        for id_, place in _distinct(job, table):
            writer.total += 1
            if id_ in failed:
                again[failed[id_]].append((id_, place))
            elif id_ not in answered:
                fresh.append((id_, place))
            answered.discard(id_)  # it is held as one that was seen
            if len(fresh) == job.part_rows:
                writer.add(next(numbers), fresh, again=False)
                fresh = []
        if fresh:
            writer.add(next(numbers), fresh, again=False)
        for number in sorted(again) if job.retry else ():
            writer.add(number, again[number], again=True)
        job.save(run)
        return writer.finish()


def _known(job: Job, folder: MapFolder) -> tuple[set[Id], dict[Id, int]]:
    """The ids in the folder that have an answer, and of the others the parts."""
    answered: set[Id] = set()
    failed: dict[Id, int] = {}
    for number, id_, error in folder.rows(job.key):
        if id_ in answered or id_ in failed:
            raise UserError(f"{folder.part(number)} has the id {id_!r}, which another part has too", "remove one part")
        if error is None:
            answered.add(id_)
        else:
            failed[id_] = number
    return answered, failed


def _distinct(job: Job, table: Table) -> Iterator[tuple[Id, Place]]:
    """Ids and places of the table, as long as no id is there twice and all are of one kind."""
    seen: set[Id] = set()
    kind: type | None = None
    columns = list(job.arguments["read"].values())
    for id_, place in table.ids(job.key, columns):
        kind = kind or type(id_)
        if type(id_) is not kind:
            raise UserError(f"{job.over} has texts and numbers as ids, e.g. {id_!r}", "make all of one kind; see --id")
        if id_ in seen:
            raise UserError(f"{job.over} has the id {id_!r} twice", "choose a column with --id that tells rows apart")
        seen.add(id_)
        yield id_, place


class _Writer:
    """Writes a plan, a row group for a part, with the rows of one part in memory."""

    def __init__(self, run: Path) -> None:
        self._run, self.total = run, 0
        self._parts: list[Part] = []
        self._file: Any = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, number: int, rows: Sequence[tuple[Id, Place]], again: bool) -> None:
        import pyarrow
        import pyarrow.parquet

        ids = pyarrow.array([id_ for id_, _ in rows])
        first, second = (pyarrow.array([place[end] for _, place in rows], pyarrow.int64()) for end in (0, 1))
        table = pyarrow.table({"id": ids, "first": first, "second": second})
        if self._file is None:
            self._file = pyarrow.parquet.ParquetWriter(self._run / _PLAN, table.schema)
        self._file.write_table(table, row_group_size=len(rows))
        self._parts.append(Part(len(self._parts), number, len(rows), again))

    def finish(self) -> Plan:
        plan = Plan(tuple(self._parts), self.total)
        write_atomically(
            self._run / _PARTS, json.dumps({"total": plan.total, "parts": [astuple(p) for p in plan.parts]})
        )
        return plan
