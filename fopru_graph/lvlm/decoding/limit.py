"""The context limit: prompt and answer together take no more positions than the language model has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from fopru_graph.errors import Caution, UserError
from fopru_graph.lvlm.families.family import Family

STRETCHED = ("linear", "dynamic")  # kinds of rope scaling whose configuration has the length before it


def position_limit(config: Any) -> int | None:
    """The positions that a language model of this configuration was made for; None if it does not say.

    Rope scaling stretches what ``max_position_embeddings`` says, except where that has been stretched already.
    """
    limit: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}  # by layer type in some families, whose limit is the whole
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1
    if limit is None:
        return None
    if kind in STRETCHED:
        return int(limit * factor)
    if kind == "yarn":
        return max(limit, int((rope.get("original_max_position_embeddings") or limit) * factor))
    return limit


def answer_limit(
    family: Family, lengths: Sequence[int], spans: Sequence[int], max_new_tokens: int, min_new_tokens: int = 0
) -> int:
    """How long an answer may become: ``max_new_tokens``, or less where the model's positions end before.

    Args:
        family: the model.
        lengths: tokens of each prompt.
        spans: positions that each prompt takes; fewer than tokens where the model numbers them on several axes, more
            where dropped tokens leave theirs behind.
        max_new_tokens: most tokens of an answer.
        min_new_tokens: least tokens of an answer.

    Raises:
        UserError: no answer of that least length has room.
    """
    span, tokens = max(zip(spans, lengths, strict=True))
    limit, least = position_limit(family.language_model.config), max(1, min_new_tokens)
    if limit is None or span + max_new_tokens <= limit:
        return max_new_tokens
    if span + least > limit:
        on = "" if span == tokens else f" on {span} positions"
        raise UserError(
            f"the prompt of {tokens} tokens{on}, with {least} more for the answer, "
            f"exceeds the {limit} positions of the language model",
            "give fewer pictures, smaller ones (Downsample), or keep fewer visual tokens (a lower ratio)"
            if span == tokens
            else "give fewer pictures or smaller ones (Downsample); dropped tokens leave their positions taken",
        )
    return limit - span


def warn_cut(family: Family, unfinished: bool, limit: int, max_new_tokens: int) -> None:
    """Say so where an answer was not at its end when the model's positions were."""
    if limit < max_new_tokens and unfinished:
        positions = position_limit(family.language_model.config)
        warnings.warn(
            f"an answer ended after {limit} of at most {max_new_tokens} tokens: "
            f"with its prompt it fills the {positions} positions of the language model",
            Caution,
            stacklevel=2,
        )
