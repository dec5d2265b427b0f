from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="prune")
class SpatialPool(Node):
    """Average neighbouring visual tokens into a smaller grid, tile by tile; at ratio 0.25 each 2 × 2 become one.

    A mean replaces the middle one of its tokens. Wire Project to both outputs.
    """

    def run(self, features: values.VisionFeatures, ratio: Ratio = 0.25, tokens: Tokens = None) -> Merged:
        from fopru_graph.pruning.spatial_pool import pooled_grid, pooling_map

        maps = [pooling_map(tile.grid, pooled_grid(tile.grid, ratio, tokens)) for tile in features.tiles]
        return merge_tiles(features, maps, pooled=True)
