from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class ClsAttention(Node):
    """Score visual tokens by the attention that the encoder's CLS token pays to them (FasterVLM, PruMerge)."""

    attention_work = "row"

    def run(
        self,
        features: values.VisionFeatures,
        heads: Annotated[
            Literal["mean", "joint"], Field(description="mean of the heads (FasterVLM), or one wide head (PruMerge)")
        ] = "mean",
    ) -> values.Significance:
        from fopru_graph.pruning.attention import cls_attention, pool_scores

        scores = []
        for attention in (tile.attention for tile in features.tiles):
            paid = cls_attention(attention, heads)
            scores.append(pool_scores(paid, attention.patch_groups, attention.weights))
        return values.Significance.of(features, scores, "cls")
