"""Prefix caching: a second question about the same image reuses the KV cache of what both prompts begin with.

Only for single prompts without in-LLM pruning, which chooses its tokens by the question. The rest of the prompt then
runs in matrix products of another shape, so logits may differ from a fresh run's in the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from fopru_graph.lvlm.decoding.runner import KeyValues
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.values import VisualTokens


def known_prefix(family: Family, tokens: VisualTokens, prompt: Prompt) -> list[KeyValues]:
    """Each layer's keys and values of the tokens that ``prompt`` shares with the last one; empty if there are none.

    The last token is never among them: its logits are what the prefill is for. The last prompt itself is forgotten: the
    run puts its own in its place, and may write into the same buffers.
    """
    if len(prompt.lengths) > 1:
        return []
    numbering, cached_ids, layers = (family.last_prompt or {}).get(tokens, ("", [], []))
    family.last_prompt = None
    if not layers or numbering != prompt.numbering or family.prefill_inputs(prompt):
        return []
    ids = prompt.input_ids[0].tolist()
    longest = min(len(ids) - 1, len(cached_ids), layers[0][0].shape[2])
    shared = next((i for i in range(longest) if ids[i] != cached_ids[i]), longest)
    return [(keys[:, :, :shared], values[:, :, :shared]) for keys, values in layers] if shared else []


def keep_prefix(
    family: Family, tokens: VisualTokens, prompt: Prompt, answer: Sequence[int], layers: Sequence[KeyValues]
) -> None:
    """Keep the cache of a finished run for the next prompt, for as long as somebody holds its visual tokens.

    The next turn of a chat begins with this one's prompt and ``answer``, the ids of its only sample.
    ``layers`` may be views of a captured step's buffers: whichever run writes there next has called `known_prefix`.
    """
    if len(prompt.lengths) == 1:
        ids = [*prompt.input_ids[0].tolist(), *answer]
        family.last_prompt = WeakKeyDictionary({tokens: (prompt.numbering, ids, layers)})
