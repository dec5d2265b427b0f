"""What several benchmarks share: the building of a task from a table of records, and parts of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fopru_graph.evaluation.records import Layout, open_records
from fopru_graph.evaluation.scorers.matching import letter
from fopru_graph.evaluation.task import Record, Score, Task

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
MARKER = "<image>"  # stands for a picture in a prompt, see fopru_graph.lvlm.inputs.chat
_SPELT = "<image >"


def table_task(layout: Layout, prompt: Callable[[Record], str], **fields: Any) -> Task:
    """A task whose records are the rows of a table, on the hub or in local files.

    Args:
        layout: where the rows are and how they become records; the task has its name.
        prompt: the prompt of a record. It is plain text: data that contains our marker of a picture stays text.
        fields: the other fields of `Task`.
    """

    def plain(record: Record) -> str:
        return prompt(record).replace(MARKER, _SPELT)

    return Task(name=layout.task, open=partial(open_records, layout), prompt=plain, **fields)


def score_by(rule: Callable[[str, Any], float], column: str = "answer") -> Callable[[str, Record], Score]:
    """A task's ``score``: what ``rule`` says of an answer and the right one, which is in the record's ``column``."""
    return lambda answer, record: Score(float(rule(answer, record[column])))


def listed(options: Sequence[str]) -> str:
    """The options with their letters, one per line, e.g. ``A. red``."""
    return "\n".join(f"{letter(i)}. {option}" for i, option in enumerate(options))
