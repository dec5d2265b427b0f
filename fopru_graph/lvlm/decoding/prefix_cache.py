"""Prefix caching: a second question about the same image reuses the KV cache of what both prompts begin with.

Only for single prompts without in-LLM pruning, which chooses its tokens by the question. The rest of the prompt then
runs in matrix products of another shape, so logits may differ from a fresh run's in the last bits.
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
class CachedPrompt:
    """The last prompt that a model answered: its visual tokens, its token ids, and each layer's keys and values."""

    tokens: weakref.ref[VisualTokens]
    ids: list[int]
    layers: Sequence[KeyValues]


def known_prefix(family: Family, tokens: VisualTokens, prompt: Prompt) -> list[KeyValues]:
    """Each layer's keys and values of the tokens that ``prompt`` shares with the last one; empty if there are none.

    The last token is never among them: its logits are what the prefill is for.
    """
    cached: CachedPrompt | None = family.last_prompt
    if cached is None or cached.tokens() is not tokens or len(prompt.lengths) > 1 or family.prefill_inputs(prompt):
        return []
    ids = prompt.input_ids[0].tolist()
    longest = min(len(ids) - 1, len(cached.ids), cached.layers[0][0].shape[2])
    shared = next((i for i in range(longest) if ids[i] != cached.ids[i]), longest)
    return [(keys[:, :, :shared], values[:, :, :shared]) for keys, values in cached.layers] if shared else []


def keep_prefix(family: Family, tokens: VisualTokens, prompt: Prompt, layers: Sequence[KeyValues]) -> None:
    """Keep the cache of a finished run for the next prompt, for as long as somebody holds its visual tokens."""
    if len(prompt.lengths) > 1:
        return
    model = weakref.ref(family)

    def drop(dead: weakref.ref[VisualTokens]) -> None:
        owner = model()
        if owner is not None and owner.last_prompt is not None and owner.last_prompt.tokens is dead:
            owner.last_prompt = None

    family.last_prompt = CachedPrompt(weakref.ref(tokens, drop), prompt.input_ids[0].tolist(), layers)
