"""AttentionAbove: the attention of the next encoder layer."""

from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class AttentionAbove(Node):
    """Take the attention of the encoder layer above the one that is read, which takes these features in (PruMerge).

    The same features with another attention: scorers and MergeDropped wired to it use that layer's queries and keys.
    Only its norm and two projections run.
    """

    def run(self, model: values.ModelHandle, features: values.VisionFeatures) -> values.VisionFeatures:
        above = model.family.attention_above(features)
        pairs = zip(features.tiles, above, strict=True)
        return features.with_tiles(tuple(replace(tile, attention=attention) for tile, attention in pairs))
