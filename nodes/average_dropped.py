from __future__ import annotations

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_tiles


@node(category="merge")
class AverageDropped(Node):
    """Average every dropped visual token into the kept one of its tile that is most similar to it (ApET, VScan).

    Similarity is the cosine of features, so wire ProjectAll to it to compare in the language model's space. Wire
    Project to both outputs. The dropped tokens of a tile that keeps none are lost.
    """

    attention_work = "similarity"

    def run(self, features: values.VisionFeatures, selection: values.Selection) -> Merged:
        from fopru_graph.pruning.similarity import average_into_nearest

        if features.counts != selection.counts:
            raise UserError(
                "features and selection were made from different tokens", "wire them to the same VisionEncode"
            )
        maps = []
        for tile, kept in zip(features.tiles, selection.indices, strict=True):
            kept = kept.to(tile.features.device)
            nothing = tile.features.new_zeros(0, len(tile.features)).float()
            maps.append((average_into_nearest(tile.features, kept) if len(kept) else nothing, kept))
        return merge_tiles(features, maps, selection)
