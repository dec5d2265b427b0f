"""AttentionAbove: the attention of the next encoder layer."""

from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score", device="model")
class AttentionAbove(Node):
    """Use the attention of the encoder layer above the one that is read, whose inputs are these features (PruMerge).

    The features stay the same; scorers and MergeDropped wired to them use that layer's queries and keys. Only its norm
    and two projections run.
    """

    def run(self, model: values.ModelHandle, features: values.VisionFeatures) -> values.VisionFeatures:
        above = model.family.attention_above(features)
        pairs = zip(features.tiles, above, strict=True)
        return features.with_tiles(tuple(replace(tile, attention=attention) for tile, attention in pairs))
