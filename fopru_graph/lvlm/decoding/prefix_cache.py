"""A second question about the same image: the keys and values of what both prompts begin with are used again.

Only for single prompts without in-LLM pruning, whose choice of tokens depends on the question. Used-again keys were
computed in a matrix product of another shape, so logits may differ from a fresh run's in the last bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from fopru_graph.lvlm.decoding.runner import KeyValues
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.values import VisualTokens


@dataclass(frozen=True, eq=False)
class Prefix:
    """The last prompt that a model answered: whose images, which token ids, and each layer's keys and values."""

    tokens: weakref.ref[VisualTokens]
    ids: list[int]
    layers: Sequence[KeyValues]


def known_prefix(family: Family, tokens: VisualTokens, prompt: Prompt) -> list[KeyValues] | None:
    """Keys and values of the first tokens of ``prompt`` if the last prompt had the same ones; else None.

    The last token is never among them: its logits are what the prefill is for.
    """
    kept: Prefix | None = family.last_prompt
    if kept is None or kept.tokens() is not tokens or len(prompt.lengths) > 1 or family.prefill_inputs(prompt):
        return None
    ids = prompt.input_ids[0].tolist()
    most = min(len(ids) - 1, len(kept.ids), kept.layers[0][0].shape[2])
    common = next((i for i in range(most) if ids[i] != kept.ids[i]), most)
    if not common:
        return None
    return [(keys[:, :, :common], values[:, :, :common]) for keys, values in kept.layers]


def keep_prefix(family: Family, tokens: VisualTokens, prompt: Prompt, layers: Sequence[KeyValues]) -> None:
    """Remember a finished run for as long as somebody holds its visual tokens."""
    if len(prompt.lengths) > 1:
        return
    model = weakref.ref(family)

    def drop(dead: weakref.ref[VisualTokens]) -> None:
        owner = model()
        if owner is not None and owner.last_prompt is not None and owner.last_prompt.tokens is dead:
            owner.last_prompt = None

    family.last_prompt = Prefix(weakref.ref(tokens, drop), prompt.input_ids[0].tolist(), layers)
