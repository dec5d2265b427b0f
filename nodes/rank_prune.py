"""RankPrune: FoPru's rank strategy."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Over, Ratio, Tokens


@node(category="prune")
class RankPrune(Node):
    """Keep the visual tokens with the highest significance (FoPru, rank strategy, Alg. 1 line 7), tile by tile."""

    def run(
        self, significance: values.Significance, ratio: Ratio = 0.25, tokens: Tokens = None, over: Over = "tile"
    ) -> values.Selection:
        from fopru_graph.pruning.over import groups_of, rank_select_over

        scores = significance.scores
        chosen = {}
        for tiles in groups_of(len(scores), significance.images, over):
            chosen |= zip(tiles, rank_select_over([scores[tile] for tile in tiles], ratio, tokens), strict=True)
        return values.Selection(tuple(chosen[tile] for tile in range(len(scores))), tuple(map(len, scores)))
