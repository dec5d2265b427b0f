from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class AttentionAbove(Node):
    """Replace the attention by that of the next encoder layer, which reads these features (PruMerge).

    Scorers and MergeDropped that are wired to the output use that layer's queries and keys; the features stay the same.
    Only the layer's norm and two projections run.
    """

    attention_work = "layer"

    def run(self, model: values.ModelHandle, features: values.VisionFeatures) -> values.VisionFeatures:
        above = zip(features.tiles, model.family.attention_above(features), strict=True)
        return features.with_tiles(tuple(replace(tile, attention=attention) for tile, attention in above))
