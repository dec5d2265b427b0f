"""ClsAttention: the CLS token's attention as the score."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class ClsAttention(Node):
    """Score visual tokens by the attention that the encoder's CLS token pays to them (FasterVLM, PruMerge)."""

    def run(
        self,
        features: values.VisionFeatures,
        heads: Annotated[
            Literal["mean", "joint"], Field(description="mean of heads (FasterVLM), or all as a wide one (PruMerge)")
        ] = "mean",
    ) -> values.Significance:
        from fopru_graph.pruning.attention import cls_attention
        from fopru_graph.pruning.pool_scores import pool_scores

        noted = [tile.attention for tile in features.tiles]
        rows = [cls_attention(one.query, one.key, one.scale, one.prefix, heads) for one in noted]
        scores = [pool_scores(row, one.patch_groups, one.weights) for row, one in zip(rows, noted, strict=True)]
        return values.Significance.of(features, scores, "cls")
