from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="merge")
class ContextualMerge(Node):
    """Spend the rest of a budget on tokens that stand for those that were dropped (VisionZip, arXiv 2412.04467).

    Before the projector, tile by tile, without text. Evenly spread dropped tokens take up the others, each by the
    cosine of its key in the encoder layer that the projector reads; they follow the selected ones. VisionZip selects
    27 of 32 tokens by the attention of CLS. Wire Project to both outputs.

    Deviations: the CLS token itself, which the published code counts among the selected ones, does not go to the
    language model, so that a ratio means visual tokens, as everywhere; each tile's tokens stay together, and families
    that pack tiles in raster order do so with newlines, as the stock model does.
    """

    attention_work = "similarity"

    def run(self, features: values.VisionFeatures, selection: values.Selection, budget: values.Budget) -> Merged:
        import torch

        from fopru_graph.pruning.select import check_budget
        from fopru_graph.pruning.visionzip import contextual_map, mean_keys

        check_budget(features.counts, budget, selection)
        maps, kept = [], []
        for tile, chosen, count in zip(features.tiles, selection.indices, budget.counts, strict=True):
            chosen = chosen.to(tile.features.device)
            maps.append(contextual_map(mean_keys(tile.attention), chosen, max(0, count - len(chosen))))
            kept.append(torch.cat([chosen, maps[-1][1]]))
        merged = merge_tiles(features, maps)
        return replace(merged, selection=replace(selection, indices=tuple(kept)))
