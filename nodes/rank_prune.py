from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Over, Ratio, Start, Tokens


@node(category="prune")
class RankPrune(Node):
    """Keep the visual tokens with the highest significance (FoPru, rank strategy, Alg. 1 line 7), tile by tile."""

    def run(
        self,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        over: Over = "tile",
        budget: BudgetInput = None,
        start: Start = None,
    ) -> values.Selection:
        from fopru_graph.pruning.select import rank_prune

        return rank_prune(significance, ratio, tokens, over, budget, start)
