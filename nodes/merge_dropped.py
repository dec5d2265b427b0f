from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="merge")
class MergeDropped(Node):
    """Add to each kept token those with similar keys, and sum all dropped ones in one further token (PruMerge).

    Tokens are weighted by their significance. The further token replaces the most significant dropped one.
    Wire Project to both outputs.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        selection: values.Selection,
        significance: values.Significance,
        neighbours: Annotated[int, Field(ge=0, description="similar tokens that are added to a kept one")] = 32,
    ) -> Merged:
        from fopru_graph.pruning.prumerge import flat_keys, merge_map

        if not features.counts == selection.counts == tuple(map(len, significance.scores)):
            raise UserError(
                "features, selection and significance were made from different tokens",
                "wire them to the same VisionEncode",
            )
        maps = []
        for tile, scores, kept in zip(features.tiles, significance.scores, selection.indices, strict=True):
            keys = flat_keys(tile.attention)
            maps.append(merge_map(scores.to(keys.device), keys, kept.to(keys.device), neighbours))
        return merge_tiles(features, maps, selection)
