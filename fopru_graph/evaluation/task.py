"""What a benchmark is to the runner: where its records are, how one becomes a prompt, and how an answer is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import PIL.Image

Record = Mapping[str, Any]  # one row of a data set: column name to value


@dataclass(frozen=True)
class Score:
    """How good one answer is: ``value`` in [0, 1], and ``facts`` that the task's metrics need; plain JSON values."""

    value: float
    facts: Mapping[str, Any] = field(default_factory=dict)


class RecordError(Exception):
    """One record cannot be used; the message says why, and which file and row it is, and the rest is not concerned."""


class Records(Protocol):
    """The records of a task in their order; reading one does not keep it, so that memory stays flat."""

    fingerprint: str
    """Identity of the data: a hash of a local file's content, or name and revision on the hub."""

    source: str
    """Where they are, for people."""

    def __len__(self) -> int:
        """Number of records."""

    def key(self, index: int) -> str:
        """Identity of a record within the task: unique, and the same in every run and on every rank."""

    def read(self, index: int) -> Record:
        """One record.

        Raises:
            RecordError: it is torn or lacks a column.
        """

    def images(self, index: int, record: Record) -> list[tuple[str, PIL.Image.Image]]:
        """The decoded RGB pictures of a record, each with an identity of its content.

        Raises:
            RecordError: a picture is missing or cannot be decoded.
        """


@dataclass(frozen=True)
class Task:
    """One benchmark.

    ``open(data, limit)`` gives the records of the hub's data set, or of a local file or folder ``data``. ``prompt``
    takes a record, ``score`` an answer and its record, ``kind`` names the part of the benchmark that a record is of
    (for accuracies by type). ``metrics`` makes further figures of all rows that were scored, each a mapping with
    ``score``, ``facts`` and ``type``. ``scorer`` names rule and version, so that figures are comparable.
    """

    name: str
    title: str
    open: Callable[[str | None, int | None], Records]
    prompt: Callable[[Record], str]
    score: Callable[[str, Record], Score]
    max_new_tokens: int
    scorer: str
    kind: Callable[[Record], str] = lambda _record: "all"
    metrics: Callable[[Sequence[Mapping[str, Any]]], dict[str, float]] = lambda _rows: {}
