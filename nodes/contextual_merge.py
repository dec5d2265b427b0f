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
    Deviations: published, the CLS token counts among the dominant ones and enters the language model; here no family's
    prompt has a place for it, and a patch takes it. Published, contextual tokens follow the dominant ones, as they do
    in the output; the pipeline puts them in raster order, which every family's positions are made for.
    """

    attention_work = "similarity"

    def run(self, features: values.VisionFeatures, selection: values.Selection, budget: values.Budget) -> Merged:
        import torch

        from fopru_graph.pruning.attention import visual_keys
        from fopru_graph.pruning.select import check_budget
        from fopru_graph.pruning.visionzip import contextual_map

        check_budget(features.counts, budget, selection)
        maps, kept_and_targets = [], []
        for tile, kept, count in zip(features.tiles, selection.indices, budget.counts, strict=True):
            keys = visual_keys(tile.attention)
            kept = kept.to(keys.device)
            maps.append(contextual_map(keys, kept, max(0, count - len(kept))))
            kept_and_targets.append(torch.cat([kept, maps[-1][1]]))
        merged = merge_tiles(features, maps)
        return replace(merged, selection=replace(selection, indices=tuple(kept_and_targets)))
