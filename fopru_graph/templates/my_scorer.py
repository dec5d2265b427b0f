from __future__ import annotations

import torch

from fopru_graph import Node, node, values


def rule(tile: values.Tile) -> torch.Tensor:
    """Score the N visual tokens of a tile, (N,); the larger the score, the sooner a token is kept. Change this.

    A tile has ``features`` (N, D), ``grid`` (h, w), and the encoder's ``attention``, whose ``query`` and ``key`` are
    (heads, prefix + M, d): M = N, unless the model makes one token of several patches (``patch_groups``).
    """
    features = tile.features.float()
    return (features - features.mean(0)).norm(dim=-1)


@node(category="score")
class MyScorer(Node):
    """Score visual tokens by how far they are from the mean of their tile."""

    attention_work = "none"  # what `bench` counts: "map" or "row" for a rule that forms attention

    def run(self, features: values.VisionFeatures) -> values.Significance:
        scores = [rule(tile).float() for tile in features.tiles]
        return values.Significance.of(features, scores, "my_scorer")
