from __future__ import annotations

from typing import TYPE_CHECKING

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_selected

if TYPE_CHECKING:
    import torch


@node(category="merge")
class AverageDropped(Node):
    """Average every dropped visual token into the kept one of its tile that is most similar to it (ApET, VScan).

    Similarity is the cosine of features, so wire ProjectAll to it to compare in the language model's space. Wire
    Project to both outputs. The dropped tokens of a tile that keeps none are lost.
    """

    attention_work = "similarity"

    def run(self, features: values.VisionFeatures, selection: values.Selection) -> Merged:
        from fopru_graph.pruning.similarity import average_into_nearest

        def average(tile: values.Tile, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return average_into_nearest(tile.features, kept), kept

        return merge_selected(features, selection, average)
