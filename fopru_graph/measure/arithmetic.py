"""The two limits of speed: operations until the first token, bytes read for every token after it.

A multiply–accumulate counts as two operations. Only what must be computed counts: causal attention by its n(n+1)/2
pairs, key and value projections by the number of their heads, the output head for one position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fopru_graph.values import ModelSizes

CONVENTION = "2 per multiply–accumulate; causal attention n(n+1)/2 pairs; GQA and the three FFN matrices as they are"


SCORING = ("map", "row", "layer", "similarity", "projector", "none")
"""What a node may say that it computes, as its class attribute ``attention_work``: an attention map of the vision
tower, one row of it, the queries and keys of one more layer, the likeness of kept visual tokens to all, the projection
of all of them, or nothing that counts. A scoring node that says nothing forms a map."""


@dataclass(frozen=True)
class Workload:
    """The work of one run; token counts are read from its tensors.

    ``tower_tokens`` counts what the vision tower saw of every tile, CLS and padding too, ``encoded`` the visual tokens
    of all tiles, ``kept`` those that entered the language model, and ``tokens_per_layer`` the prompt's tokens in each
    decoder layer, for each of ``batch`` samples. ``scoring`` holds what each node computed, of `SCORING`.
    ``whole_tower``: all layers of the vision tower ran. ``projects_all``: tokens were projected before any was dropped.
    """

    tower_tokens: Sequence[int]
    encoded: int
    kept: int
    tokens_per_layer: Sequence[int]
    scoring: Sequence[str] = ()
    batch: int = 1
    whole_tower: bool = False
    projects_all: bool = False


def first_token_flops(sizes: ModelSizes, work: Workload) -> dict[str, int]:
    """Operations until the first token by stage, and their ``total``."""
    tiles = work.tower_tokens
    patches = sum(tokens - sizes.prefix for tokens in tiles)
    projected = patches // sizes.patches if work.projects_all or "projector" in work.scoring else work.kept
    flops = {
        "encode": sum(_tower_flops(sizes, tokens, work.whole_tower) for tokens in tiles),
        "score": sum(_score_flops(sizes, kind, tokens) for kind in work.scoring for tokens in tiles),
        "select": work.scoring.count("similarity") * _similarity_flops(sizes, work),
        "project": 2 * projected * sizes.projector_weights,
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
    """Bytes that an average decoding step after the first must read: the weights, and the keys and values by then.

    ``kv_bytes`` and ``kv_lengths`` are those at the end of an answer of ``new_tokens`` tokens.
    """
    per_token = kv_bytes / sum(kv_lengths)
    # Step t of new − 1 reads prompt + t tokens: those after the first read (new + 1) / 2 on average beside the prompt.
    # At the end there are prompt + new − 1.
    average = sum(length - (new_tokens - 1) + (new_tokens + 1) / 2 for length in kv_lengths)
    return sizes.step_bytes + per_token * average


def _tower_flops(sizes: ModelSizes, tokens: int, whole: bool) -> int:
    weights, layers = sizes.whole_tower if whole else (sizes.tower_weights, sizes.tower_layers)
    pairs = tokens**2 * (layers - sizes.windowed_layers) + tokens * min(tokens, sizes.window) * sizes.windowed_layers
    patches = tokens - sizes.prefix
    return 2 * patches * sizes.patch_weights + 2 * tokens * weights + 4 * pairs * sizes.tower_width


def _score_flops(sizes: ModelSizes, kind: str, tokens: int) -> int:
    """Of a node of `SCORING` on a tile; what is linear in the tokens is not counted, but for a row.

    The row is that of the CLS token: where a tower has none, scorers that do not refuse form the map.
    """
    products = {"map": tokens**2, "row": tokens if sizes.prefix else tokens**2, "layer": 2 * tokens * sizes.tower_width}
    return 2 * products.get(kind, 0) * sizes.tower_width


def _similarity_flops(sizes: ModelSizes, work: Workload) -> int:
    """The keys of the kept tokens of each tile against those of all its tokens, as if the tiles kept equal shares."""
    share = work.kept / max(1, work.encoded)
    return round(sum(2 * share * (tokens / sizes.patches) ** 2 * sizes.tower_width for tokens in work.tower_tokens))


def _layer_flops(sizes: ModelSizes, tokens: int) -> int:
    pairs = tokens * (tokens + 1) // 2 if sizes.causal else tokens**2
    return 2 * tokens * sizes.layer_weights + 4 * sizes.query_width * pairs
