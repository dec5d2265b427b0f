from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class RandomScore(Node):
    """Score visual tokens at random, the baseline for every scorer.

    A picture always gets the same scores, whatever else is encoded with it.
    """

    attention_work = "none"

    def run(
        self,
        features: values.VisionFeatures,
        seed: Annotated[int, Field(ge=0, description="another seed gives other scores")] = 0,
    ) -> values.Significance:
        from fopru_graph.pruning.random_scores import random_scores

        images, scores = [tile.image for tile in features.tiles], []
        for i, tile in enumerate(features.tiles):
            number = images[:i].count(tile.image)  # of the tile among those of its image
            tile_scores = random_scores(len(tile.features), seed, number, features.seen(i))
            scores.append(tile_scores.to(tile.features.device))
        return values.Significance.of(features, scores, "random")
