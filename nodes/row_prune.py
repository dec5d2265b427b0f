"""RowPrune: FoPru's row strategy."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes.budget import Ratio, Tokens


@node(category="prune")
class RowPrune(Node):
    """Keep the whole grid rows with the highest summed significance (FoPru, row strategy, Alg. 1 lines 9–11)."""

    def run(self, significance: values.Significance, ratio: Ratio = 0.25, tokens: Tokens = None) -> values.Selection:
        from fopru_graph.pruning.row import row_select

        pairs = zip(significance.scores, significance.grids, strict=True)
        chosen = tuple(row_select(scores, grid, ratio, tokens) for scores, grid in pairs)
        return values.Selection(chosen, tuple(len(scores) for scores in significance.scores))
