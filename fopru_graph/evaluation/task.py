"""What a benchmark is to the runner: its records, the prompt of each, and how an answer is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import PIL.Image

Record = Mapping[str, Any]  # one row of a data set: column name to value


@dataclass(frozen=True)
class Score:
    """How good one answer is: ``value`` in [0, 1], and ``facts`` that the task's metrics need; plain JSON values."""

    value: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as a score may need it.

    ``size`` is its (width, height) in pixels, ``seen()`` that of the picture as the model's preprocessing made it.
    """

    size: tuple[int, int]
    seen: Callable[[], tuple[int, int]]


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
        score: the score of an answer to a record, which has its pictures (`Shown`) as ``shown``.
        max_new_tokens: the longest answer.
        scorer: name and version of the scoring rule, e.g. ``pope@1``; figures of different ones do not compare.
        kind: the part of the benchmark that a record belongs to, for accuracies by type.
        metrics: further figures, from all scored rows as mappings with ``score``, ``facts`` and ``type``.
        file: the file of an own task, as ``--task`` names it.
        definition: further JSON values that prompts and scores follow from.
        code: functions that ``score`` and ``metrics`` call by another way than an import.
        variants: what differs for models of a type (transformers' ``model_type``), by field.
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
    file: str | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[Callable[..., Any], ...] = ()
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """What ``--task`` calls it: its file if it has one, else its name."""
        return self.file or self.name

    @property
    def facts(self) -> dict[str, Any]:
        """The values that answers and scores follow from, as JSON."""
        return {"name": self.name, "scorer": self.scorer, "max_new_tokens": self.max_new_tokens, **self.definition}

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The functions that answers and scores follow from."""
        return (self.prompt, self.score, self.kind, self.metrics, *self.code)

    def asked_of(self, handle: Any) -> Task:
        """The task as it is put to the model of a `values.ModelHandle`. Its identity is that of this task."""
        return replace(self, **self.variants.get(handle.family.model_type, {})) if self.variants else self
