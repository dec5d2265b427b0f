"""The two limits of speed: operations until the first token, bytes read for every token after it.

A multiply–accumulate counts as two operations. Only what must be computed counts: causal attention by its n(n+1)/2
pairs, key and value projections by the number of their heads, the output head for one position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fopru_graph.values import ModelSizes

CONVENTION = "2 per multiply–accumulate; causal attention n(n+1)/2 pairs; GQA and the three FFN matrices as they are"


@dataclass(frozen=True)
class Workload:
    """The work of one run; token counts are read from its tensors.

    ``tiles`` counts the visual tokens of every encoded tile, ``projected`` those that were projected, and
    ``tokens_per_layer`` the prompt's tokens in each decoder layer, for each of ``batch`` samples. ``scored``: visual
    tokens were scored by their attention. ``whole_tower``: all layers of the vision tower ran.
    """

    tiles: Sequence[int]
    scored: bool
    projected: int
    tokens_per_layer: Sequence[int]
    batch: int = 1
    whole_tower: bool = False


def first_token_flops(sizes: ModelSizes, work: Workload) -> dict[str, int]:
    """Operations until the first token by stage, and their ``total``."""
    flops = {
        "encode": sum(_tower_flops(sizes, tokens, work.whole_tower) for tokens in work.tiles),
        "score": sum(_score_flops(sizes, tokens) for tokens in work.tiles) if work.scored else 0,
        "project": 2 * work.projected * sizes.projector_weights,
        "prefill": work.batch * sum(_layer_flops(sizes, tokens) for tokens in work.tokens_per_layer)
        + work.batch * 2 * sizes.head_weights,
    }
    return flops | {"total": sum(flops.values())}


def published_macs(sizes: ModelSizes, tokens_per_layer: Sequence[int]) -> dict[str, int]:
    """Multiply–accumulates of the decoder layers as papers count them.

    ``fastv``: 4nd² + 2n²d + 2ndm a layer (FastV, Eq. 5); ``swiglu``: 4nd² + 2n²d + 3ndm (SparseVLM).
    """
    width, inner = sizes.width, sizes.inner
    shared = sum(4 * n * width**2 + 2 * n * n * width for n in tokens_per_layer)
    ffn = sum(n * width * inner for n in tokens_per_layer)
    return {"fastv": shared + 2 * ffn, "swiglu": shared + 3 * ffn}


def step_bytes(sizes: ModelSizes, kv_bytes: int, kv_lengths: Sequence[int], new_tokens: int) -> float:
    """Bytes that an average decoding step must read: the weights, and the keys and values there are by then.

    ``kv_bytes`` and ``kv_lengths`` are those at the end of an answer of ``new_tokens`` tokens.
    """
    per_token = kv_bytes / sum(kv_lengths)
    # Step t of new − 1 reads prompt + t tokens; at the end there are prompt + new − 1.
    average = sum(length - (new_tokens - 1) + new_tokens / 2 for length in kv_lengths)
    return sizes.step_bytes + per_token * average


def _tower_flops(sizes: ModelSizes, visual: int, whole: bool) -> int:
    patches = visual * sizes.patches
    tokens = patches + sizes.prefix
    weights, layers = sizes.whole_tower if whole else (sizes.tower_weights, sizes.tower_layers)
    attention = 4 * tokens**2 * sizes.tower_width * layers
    return 2 * patches * sizes.patch_weights + 2 * tokens * weights + attention


def _score_flops(sizes: ModelSizes, visual: int) -> int:
    """One attention map of the tower; the rest of scoring is linear in the tokens and not counted."""
    return 2 * (visual * sizes.patches + sizes.prefix) ** 2 * sizes.tower_width


def _layer_flops(sizes: ModelSizes, tokens: int) -> int:
    return 2 * tokens * sizes.layer_weights + 4 * sizes.query_width * tokens * (tokens + 1) // 2
