from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="prune")
class ToMe(Node):
    """Merge the most similar visual tokens, a few a round, until the budget is met (ToMe, arXiv 2210.09461).

    Acts before the projector, tile by tile, by the keys of the scored encoder layer, the mean over its heads; needs
    neither CLS nor text. A merged token is the mean of all that went into it and has the place of one of them. Wire
    Project to both outputs.

    Deviations: published ToMe merges r tokens in every layer inside the encoder, here all merges follow it, in fewer
    and larger rounds: so every family's stock tower serves, and the encoder gets no faster. Attention to merged tokens
    is not weighted by their size. Tokens stay in raster order between the rounds.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        rounds: Annotated[int, Field(ge=1, description="equal shares that the merges are made in")] = 6,
    ) -> Merged:
        from fopru_graph.pruning.tome import tile_maps

        maps = tile_maps([tile.attention for tile in features.tiles], ratio, tokens, rounds)
        return merge_tiles(features, maps, pooled=True)
