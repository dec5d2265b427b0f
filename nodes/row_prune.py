from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, RowsOver, Tokens


@node(category="prune")
class RowPrune(Node):
    """Keep the whole grid rows with the highest summed significance (FoPru, row strategy, Alg. 1 lines 9–11)."""

    def run(
        self, significance: values.Significance, ratio: Ratio = 0.25, tokens: Tokens = None, over: RowsOver = "tile"
    ) -> values.Selection:
        from fopru_graph.pruning.rows import row_prune

        return row_prune(significance, ratio, tokens, over)
