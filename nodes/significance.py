"""Significance: FoPru's score of every visual token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class Significance(Node):
    """Score visual tokens by the encoder's own attention (FoPru Eq. 2–4), tile by tile."""

    def run(
        self,
        features: values.VisionFeatures,
        direction: Annotated[
            Literal["auto", "received", "given"],
            Field(description="which mean of the attention map: auto takes the one with the larger variance"),
        ] = "auto",
    ) -> values.Significance:
        from fopru_graph.pruning.attention import attention_means
        from fopru_graph.pruning.pool_scores import pool_scores
        from fopru_graph.pruning.significance import significance

        scores, sides = [], []
        for tile in features.tiles:
            noted = tile.attention
            means = attention_means(noted.query, noted.key, noted.scale, noted.prefix)
            pooled = [pool_scores(mean, noted.patch_groups, noted.weights) for mean in means]
            one, side = significance(*pooled, direction)
            scores.append(one)
            sides.append(side)
        return values.Significance.of(features, scores, sides)
