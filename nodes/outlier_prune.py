from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class OutlierPrune(Node):
    """Keep the visual tokens whose significance is an outlier, tile by tile; their number varies (PruMerge)."""

    def run(
        self,
        significance: values.Significance,
        factor: Annotated[
            float, Field(ge=0, description="interquartile ranges above the third quartile that make an outlier")
        ] = 1.5,
    ) -> values.Selection:
        from fopru_graph.pruning.prumerge import outlier_select
        from fopru_graph.pruning.select import selection_of

        return selection_of([outlier_select(tile, factor) for tile in significance.scores], significance)
