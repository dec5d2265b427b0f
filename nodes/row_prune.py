from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens


@node(category="prune")
class RowPrune(Node):
    """Keep the whole grid rows with the highest summed significance (FoPru, row strategy, Alg. 1 lines 9–11)."""

    def run(
        self,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        over: Annotated[
            Literal["tile", "image", "stitched"],
            Field(
                description="spend the budget in each tile, over all tiles (or frames) of an image at once, or on rows "
                "that run through all tiles of a picture from edge to edge"
            ),
        ] = "tile",
    ) -> values.Selection:
        from fopru_graph.pruning.rows import row_prune

        return row_prune(significance, ratio, tokens, over)
