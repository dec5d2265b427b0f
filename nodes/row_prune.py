"""RowPrune: FoPru's row strategy."""

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
        from fopru_graph.pruning.over import groups_of, row_select_over
        from fopru_graph.pruning.stitch import stitched_groups, stitched_row_select

        scores, grids = significance.scores, significance.grids
        chosen: dict = {}
        if over == "stitched":
            groups = stitched_groups(groups_of(len(scores), significance.images, "image"), significance.tile_positions)
            for tiles, bands in groups:
                picked = stitched_row_select([scores[t] for t in tiles], grids[tiles[0]], bands, ratio, tokens)
                chosen |= zip(tiles, picked, strict=True)
        else:
            for tiles in groups_of(len(scores), significance.images, over):
                picked = row_select_over([scores[t] for t in tiles], [grids[t] for t in tiles], ratio, tokens)
                chosen |= zip(tiles, picked, strict=True)
        return values.Selection(tuple(chosen[tile] for tile in range(len(scores))), tuple(map(len, scores)))
