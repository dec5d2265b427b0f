"""RankPrune: FoPru's rank strategy."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes.budget import Ratio, Tokens


@node(category="prune")
class RankPrune(Node):
    """Keep the visual tokens with the highest significance (FoPru, rank strategy, Alg. 1 line 7), tile by tile."""

    def run(self, significance: values.Significance, ratio: Ratio = 0.25, tokens: Tokens = None) -> values.Selection:
        from fopru_graph.pruning.rank import rank_select

        chosen = tuple(rank_select(scores, ratio, tokens) for scores in significance.scores)
        return values.Selection(chosen, tuple(len(scores) for scores in significance.scores))
