"""What the prompts of several benchmarks share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from fopru_graph.evaluation.scorers.choice import letter
from fopru_graph.evaluation.task import Record

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
MARKER = "<image>"  # where fopru_graph.lvlm.inputs.prompt puts a picture
_SPELT = "<image >"


def plain(prompt: Callable[[Record], str]) -> Callable[[Record], str]:
    """The same prompt as mere text: words of the data that look like our marker of a picture are none."""

    @functools.wraps(prompt)
    def without_marker(record: Record) -> str:
        return prompt(record).replace(MARKER, _SPELT)

    return without_marker


def listed(options: Sequence[str]) -> str:
    """The options a line each, with their letters."""
    return "\n".join(f"{letter(i)}. {option}" for i, option in enumerate(options))
