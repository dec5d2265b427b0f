from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class PromoteAnchors(Node):
    """Put the best tokens of a middle encoder layer and their neighbours before all others (HiPrune, 2508.00553).

    HiPrune keeps round(k · α / 5) anchors with their left, right, upper and lower neighbours, and fills up to k by the
    deep layer's scores: wire Significance of the middle layer to anchors, of the read layer to significance, and
    Budget's part (share: α, published 0.1) to budget. It acts before the projector, and needs neither text nor CLS.
    Deviation: neighbours stop at the ends of rows, where the published code runs over them.
    """

    attention_work = "none"

    def run(
        self, significance: values.Significance, anchors: values.Significance, budget: values.Budget
    ) -> values.Significance:
        from fopru_graph.pruning.hiprune import promote_anchors
        from fopru_graph.pruning.select import check_budget

        check_budget(list(map(len, significance.scores)), budget, None)
        tiles = zip(significance.scores, anchors.scores, significance.grids, budget.counts, strict=True)
        promoted = (promote_anchors(deep, middle, grid, round(count / 5)) for deep, middle, grid, count in tiles)
        return replace(significance, scores=tuple(promoted))
