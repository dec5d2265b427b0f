from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class MassPrune(Node):
    """Keep the fewest visual tokens that hold a share of all significance, tile by tile."""

    def run(
        self,
        significance: values.Significance,
        mass: Annotated[float, Field(gt=0, le=1, description="share of the summed significance to keep")] = 0.8,
    ) -> values.Selection:
        from fopru_graph.pruning.cumulative import cumulative_select
        from fopru_graph.pruning.select import selection_of

        return selection_of(cumulative_select(significance.scores, mass), significance)
