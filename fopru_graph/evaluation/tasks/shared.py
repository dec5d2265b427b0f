"""What prompts of several benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence

from fopru_graph.evaluation.scorers.matching import letter

MARKER = "<image>"  # stands for a picture in a prompt, see fopru_graph.lvlm.inputs.chat
_SPELT = "<image >"


def plain(text: str) -> str:
    """The text without our marker of a picture: data that contains it stays text."""
    return text.replace(MARKER, _SPELT)


def lettered(options: Sequence[str]) -> str:
    """The options with their letters, one per line, e.g. ``A. red``."""
    return "\n".join(f"{letter(i)}. {option}" for i, option in enumerate(options))
