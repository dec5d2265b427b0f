from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Ratio, Tokens


@node(category="prune")
class AnchorPrune(Node):
    """Keep a fifth of the budget by significance and each one's four neighbours (HiPrune, arXiv 2508.00553).

    Before the projector, tile by tile, without CLS and text. HiPrune's significance is the attention received in a
    layer at a third of the encoder's depth, its budget a tenth of all kept tokens; RankPrune fills up from the layer
    that the projector reads (22 of 24 in CLIP, the last in Qwen, as published).

    Deviations: neighbours end at the edges of the grid, where the published code goes on in the next row; the CLS
    query is no part of the attention received (as in FoPru). Budgets are spent only up to neighbours that coincide.
    """

    def run(
        self,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        budget: BudgetInput = None,
    ) -> values.Selection:
        from fopru_graph.pruning.hiprune import anchors
        from fopru_graph.pruning.select import budget_counts, selection_of

        counts = budget_counts(list(map(len, significance.scores)), ratio, tokens, budget)
        return selection_of(anchors(significance.scores, significance.grids, counts), significance)
