"""From samples to rows: each is asked, alone or in a batch, and its answer scored; a failure is a row with its reason.

Whatever the size of the batches, a row is the same but for its times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.answer import Answer
from fopru_graph.batches import AHEAD, answered, equal_batches, work_of
from fopru_graph.evaluation.task import Record, RecordError, Records, Shown, Task
from fopru_graph.graph import Cancelled, NodeError
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.results.schema import Row, encodable

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, eq=False)
class _Asked:
    """A sample that was read, and how long that took."""

    index: int
    record: Record
    prompt: str
    pictures: Sequence[tuple[str, PIL.Image.Image]]
    read_ms: float


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a cell.

    Args:
        task: as it is put to the model.
        records: its records.
        model: answers the questions.
        rank: of this process; it stands in the rows.
        batch_size: samples that are answered together at most. Those of several pictures are asked alone.
    """

    task: Task
    records: Records
    model: PipelineModel
    rank: int
    batch_size: int = 1

    def rows(self, indices: Sequence[int]) -> Iterator[Row]:
        """The rows of these samples, each once and soon after its answer; in batches not quite in their order.

        Batches are of equal work, chosen from the next samples, whose pictures are in memory meanwhile.

        Raises:
            Cancelled: the run was cancelled.
        """
        if self.batch_size == 1:
            yield from map(self.row, indices)
            return
        ahead = AHEAD * self.batch_size
        for first in range(0, len(indices), ahead):
            asked: list[_Asked] = []
            for index in indices[first : first + ahead]:
                read = self._read(index)
                if isinstance(read, _Asked) and len(read.pictures) == 1:
                    asked.append(read)
                else:
                    yield self.row(index) if isinstance(read, _Asked) else read
            for batch in equal_batches(list(map(self._work, asked)), self.batch_size):
                yield from self._batch([asked[number] for number in batch])

    def row(self, index: int) -> Row:
        """The row of a sample that is asked alone. A failure, whatever it is, becomes its error, never an answer.

        Raises:
            Cancelled: the run was cancelled.
        """
        asked = self._read(index)
        if not isinstance(asked, _Asked):
            return asked
        try:
            begin = time.perf_counter()
            answer = self.model.answer(asked.prompt, asked.pictures, self.task.max_new_tokens)
            scored = self._scored(asked, answer)
            return self._made(index, scored | {"timing": self._timing(answer, asked.read_ms + _ms_since(begin))})
        except Cancelled:
            raise
        except Exception as error:  # of a scorer or a kind of question: a row may hold anything
            return self._failed(index, error)

    def _batch(self, batch: Sequence[_Asked]) -> Iterator[Row]:
        """The rows of a batch; what it took together is shared out evenly."""
        begin, scoring_ms = time.perf_counter(), 0.0
        results: list[tuple[_Asked, Answer, dict[str, Any], float]] = []
        questions = [(asked.prompt, asked.pictures[0]) for asked in batch]
        for asked, outcome in zip(batch, answered(self.model, questions, self.task.max_new_tokens), strict=True):
            if isinstance(outcome, Exception):
                yield self._failed(asked.index, outcome)
                continue
            start = time.perf_counter()
            try:  # at once: the size that the model saw is known of the last run
                results.append((asked, outcome, self._scored(asked, outcome), _ms_since(start)))
            except Cancelled:
                raise
            except Exception as error:
                yield self._failed(asked.index, error)
            scoring_ms += _ms_since(start)
        share_ms = (_ms_since(begin) - scoring_ms) / len(batch)
        for asked, answer, scored, score_ms in results:
            timing = self._timing(answer, asked.read_ms + share_ms + score_ms)
            try:
                yield self._made(asked.index, scored | {"timing": timing})
            except ValueError as error:
                yield self._failed(asked.index, error)

    def _read(self, index: int) -> _Asked | Row:
        """A sample, or the row of one that cannot be asked."""
        begin = time.perf_counter()
        try:
            record = self.records.read(index)
            pictures = self.records.images(index, record)
            return _Asked(index, record, self.task.prompt(record), pictures, _ms_since(begin))
        except Cancelled:
            raise
        except Exception as error:  # of a prompt: a row may hold anything
            return self._failed(index, error)

    def _work(self, asked: _Asked) -> int:
        ((_, picture),) = asked.pictures
        return work_of(self.model.handle.family, asked.prompt, (picture.height, picture.width))

    def _scored(self, asked: _Asked, answer: Answer) -> dict[str, Any]:
        """What a row says of an answer, but for its times."""
        shown = [Shown(picture.size, lambda: self.model.seen_size(answer)) for _, picture in asked.pictures]
        score = self.task.score(answer.text, {**asked.record, "shown": shown})
        return {
            "type": self.task.kind(asked.record),
            "picture": asked.pictures[0][0] if asked.pictures else "",
            "status": "ok",
            "answer": answer.text,
            "score": score.value,
            "facts": json.loads(json.dumps(dict(score.facts), allow_nan=False)),  # what no file can hold fails here
            **_counts(answer),
        }

    def _timing(self, answer: Answer, total_ms: float) -> dict[str, float | None]:
        """Times of a row; a sample of a batch has none to its first token, and says how many shared the run."""
        together = answer.report.get("samples", 1)
        alone = together == 1
        return {
            "ttft_ms": None if answer.ttft_ms is None else round(answer.ttft_ms, 3),
            "prefill_ms": round(answer.report["prefill_ms"], 3) if alone else None,
            "total_ms": round(total_ms, 3),
            "rank": self.rank,
        } | ({} if alone else {"batch": together})

    def _made(self, index: int, more: Mapping[str, Any]) -> Row:
        head = {"index": index, "id": self.records.key(index), "picture_files": self.records.picture_files(index)}
        return Row.model_validate(encodable(head | dict(more)))

    def _failed(self, index: int, error: Exception) -> Row:
        if isinstance(error, RecordError):
            why = str(error)
        elif isinstance(error, NodeError):
            why = f"{error.node}: {error.cause}" + (f" (raised at {error.raised_at})" if error.raised_at else "")
        else:
            why = f"{type(error).__name__}: {error}"
        return self._made(index, {"status": "error", "error": why})


def _ms_since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1e3


def _counts(answer: Answer) -> dict[str, Any]:
    """Numbers of tokens and bytes, and how kept tokens were numbered, read from the report of the generating node."""
    report = answer.report
    tokens = report["visual_tokens"]
    return {name: tokens[name] for name in ("encoded", "kept", "final", "layer_average")} | {
        "text_tokens": report["kv_lengths"][0] - report["visual_per_layer"][0] - (report["new_tokens"] - 1),
        "new_tokens": report["new_tokens"],
        "kv_bytes": report["kv_bytes"],
        "positions": report.get("positions"),
    }
