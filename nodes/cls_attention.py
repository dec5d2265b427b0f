from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import EncoderLayer


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
        layer: EncoderLayer = None,
        without_cls: Annotated[
            Literal["refuse", "received"],
            Field(description="of a tower without CLS token: an error, or the mean attention that a token receives"),
        ] = "refuse",
    ) -> values.Significance:
        from fopru_graph.pruning.attention import attention_means, cls_attention, pool_scores

        scores, read = [], "cls"
        for attention in (tile.attention.at(layer) for tile in features.tiles):
            if without_cls == "received" and not attention.has_cls:
                paid = attention_means(attention.query, attention.key, attention.scale, attention.prefix)[1]
                read = "received"
            else:
                paid = cls_attention(attention, heads)
            scores.append(pool_scores(paid, attention.patch_groups, attention.weights))
        return values.Significance.of(features, scores, read)
