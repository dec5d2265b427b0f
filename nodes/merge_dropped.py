"""MergeDropped: PruMerge's merging."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Mixed, mixed_tiles


@node(category="merge")
class MergeDropped(Node):
    """Add to each kept token those with similar keys, and put all dropped ones into one further token (PruMerge).

    Tokens are weighted by their significance. The further token takes the place of the most significant dropped one.
    Wire Project to both outputs.
    """

    def run(
        self,
        features: values.VisionFeatures,
        selection: values.Selection,
        significance: values.Significance,
        neighbours: Annotated[int, Field(ge=0, description="similar tokens that a kept one takes up")] = 32,
    ) -> Mixed:
        from fopru_graph.pruning.merge import flat_keys, merge_map

        if not features.counts == selection.counts == tuple(map(len, significance.scores)):
            raise UserError(
                "features, selection and significance were made from different tokens",
                "wire them to the same VisionEncode",
            )
        keys = [flat_keys(tile.attention) for tile in features.tiles]
        parts = zip(significance.scores, keys, selection.indices, strict=True)
        maps = [merge_map(one.to(key.device), key, kept.to(key.device), neighbours) for one, key, kept in parts]
        return mixed_tiles(features, maps)
