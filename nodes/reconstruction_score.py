from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class ReconstructionScore(Node):
    """Score visual tokens by how badly a few basis tokens of their tile reconstruct them (ApET, arXiv 2602.19870).

    Before the projector; needs neither CLS nor text. Ten basis tokens are published; their farthest-point search starts
    at the longest token, as we do not know where published code starts, and goes by Euclidean distance.
    """

    attention_work = "none"

    def run(
        self,
        features: values.VisionFeatures,
        basis: Annotated[int, Field(ge=1, description="basis tokens of a tile")] = 10,
    ) -> values.Significance:
        from fopru_graph.pruning.batches import each_in_batches
        from fopru_graph.pruning.reconstruction import reconstruction_error

        scores = each_in_batches([tile.features for tile in features.tiles], partial(reconstruction_error, basis=basis))
        return values.Significance.of(features, scores, "reconstruction")
