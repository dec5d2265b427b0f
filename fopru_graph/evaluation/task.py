"""What a benchmark is to the runner: its records, the prompt of each, and how an answer is scored."""

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
    """One record cannot be used; the message names its file and row and says why. Other records are not affected."""


class Records(Protocol):
    """The records of a task in their order. Records that were read are not kept, so memory stays flat."""

    fingerprint: str
    """Identity of the data: a hash of a local file's content, or name and revision on the hub."""

    source: str
    """Where the records are, for people."""

    def __len__(self) -> int:
        """Number of records."""

    def key(self, index: int) -> str:
        """Identity of a record within the task: unique, and the same in every run and on every rank."""

    def read(self, index: int) -> Record:
        """One record.

        Raises:
            RecordError: it is cut short or lacks a column.
        """

    def picture_files(self, index: int) -> list[str]:
        """Digests of the picture files that a record names; empty if its pictures are in the data, or it is torn."""

    def images(self, index: int, record: Record) -> list[tuple[str, PIL.Image.Image]]:
        """The decoded RGB pictures of a record, each with an identity of its content.

        Raises:
            RecordError: a picture is missing or cannot be decoded.
        """


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Args:
        name: what ``--task`` calls it.
        title: its name and split for people.
        open: ``open(data, limit)`` gives the records: of the data set on the hub, or of the local path ``data``.
        prompt: the prompt of a record.
        score: the score of an answer to a record.
        max_new_tokens: the longest answer.
        scorer: name and version of the scoring rule, e.g. ``pope@1``; figures of different ones do not compare.
        kind: the part of the benchmark that a record belongs to, for accuracies by type.
        metrics: further figures, from all scored rows as mappings with ``score``, ``facts`` and ``type``.
    """

    name: str
    title: str
    open: Callable[[str | None, int | None], Records]
    prompt: Callable[[Record], str]
    score: Callable[[str, Record], Score]
    max_new_tokens: int
    scorer: str
    kind: Callable[[Record], str] = lambda record: str(record.get("kind", "all"))
    metrics: Callable[[Sequence[Mapping[str, Any]]], dict[str, float]] = lambda _rows: {}
