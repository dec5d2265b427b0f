from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Ratio, Tokens


@node(category="prune")
class HoloVPrune(Node):
    """Share the budget out over chunks of the sequence by attention and diversity; keep each one's best (HoloV).

    Paper: arXiv 2510.02912, NeurIPS'25. Acts before the language model, tile by tile; reads no text. The scores are the
    CLS token's attention; without one the attention received serves, as the authors take it on Qwen.
    A chunk's share is its mean of a + weight · v: attention, and variance of a token's cosines within the chunk,
    rescaled to the mean of a. Within a chunk attention alone chooses. Defaults are published: 16 chunks, weight 0.09.

    The selection is chunk by chunk, best first, which is the order that the authors give LLaVA's language model;
    Reorder puts it in raster order. Decided here, where the rule is silent: a cosine is one to another token, chunks
    differ in length by at most one, and what a full chunk cannot take goes to the next by share.
    """

    def run(
        self,
        features: values.VisionFeatures,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        budget: BudgetInput = None,
        chunks: Annotated[
            int | None,
            Field(ge=1, description="chunks of a tile; empty: ⌊1024 · N / (576 · K)⌋, as published for Qwen"),
        ] = 16,
        weight: Annotated[float, Field(ge=0, description="of the diversity beside the attention")] = 0.09,
    ) -> values.Selection:
        from fopru_graph.pruning.holov import holov_select
        from fopru_graph.pruning.select import check_tokens, kept_counts, selection_of

        check_tokens(features, significance)
        counts = kept_counts(features.counts, ratio, tokens, budget)
        tiles = zip(features.tiles, significance.scores, counts, strict=True)
        kept = [holov_select(tile.features, scores, count, chunks, weight) for tile, scores, count in tiles]
        return selection_of(kept, significance)
