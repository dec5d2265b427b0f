from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="merge")
class ContextualMerge(Node):
    """Add contextual tokens to the kept ones: evenly spaced others with what resembles them (VisionZip, 2412.04467).

    Of the budget, what the selection leaves over are contextual tokens. A token's key, averaged over the heads, says
    what it resembles. Acts before the projector, tile by tile; needs no text. Wire Project to both outputs.
    Deviation: published, the CLS token counts among the dominant ones and enters the language model; here no family's
    prompt has a place for it, and a patch takes it.
    """

    attention_work = "similarity"

    def run(self, features: values.VisionFeatures, selection: values.Selection, budget: values.Budget) -> Merged:
        from fopru_graph.pruning.attention import pool_scores
        from fopru_graph.pruning.select import check_budget
        from fopru_graph.pruning.visionzip import contextual_map

        check_budget(features.counts, budget, selection)
        maps = []
        for tile, kept, count in zip(features.tiles, selection.indices, budget.counts, strict=True):
            attention = tile.attention
            keys = attention.key[:, attention.prefix :].float().mean(0)
            keys = pool_scores(keys, attention.patch_groups, attention.weights)
            maps.append(contextual_map(keys, kept.to(keys.device), max(0, count - len(kept))))
        merged = merge_tiles(features, maps)
        return replace(merged, selection=replace(merged.selection, scores_finite=selection.scores_finite))
