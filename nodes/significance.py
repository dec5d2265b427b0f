from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import EncoderLayer


@node(category="score")
class Significance(Node):
    """Score visual tokens by the encoder's own attention (FoPru Eq. 2–4), tile by tile."""

    attention_work = "map"

    def run(
        self,
        features: values.VisionFeatures,
        direction: Annotated[
            Literal["auto", "received", "given"],
            Field(description="which mean of the attention map: auto takes the one with the larger variance"),
        ] = "auto",
        layer: EncoderLayer = None,
    ) -> values.Significance:
        from fopru_graph.pruning.attention import attention_means, pool_scores, significance

        scores, directions = [], []
        for attention in (tile.attention.at(layer) for tile in features.tiles):
            means = attention_means(attention.query, attention.key, attention.scale, attention.prefix)
            pooled = [pool_scores(mean, attention.patch_groups, attention.weights) for mean in means]
            tile_scores, received = significance(*pooled, direction)
            scores.append(tile_scores)
            directions.append(received)
        return values.Significance.of(features, scores, directions)
