from __future__ import annotations

import torch
from my_scorer import MyScorer

from fopru_graph import values


def slow_rule(tile: values.Tile, token: int) -> float:
    """The score of one token, in the most obvious way: change it together with the rule."""
    mean = sum(tile.features) / len(tile.features)
    return sum(number**2 for number in (tile.features[token] - mean).tolist()) ** 0.5


def encoded(*grids: tuple[int, int]) -> values.VisionFeatures:
    """Tiles with random features and attention, as an encoder with a CLS token gives them."""
    torch.manual_seed(0)
    tiles = []
    for image, (height, width) in enumerate(grids):
        query, key = torch.randn(2, 4, 1 + height * width, 8)
        attention = values.TileAttention(query, key, 8**-0.5, prefix=1, has_cls=True)
        tiles.append(values.Tile(torch.randn(height * width, 32), (height, width), image, attention))
    return values.VisionFeatures(tuple(tiles), ())


def test_every_visual_token_has_one_finite_score() -> None:
    scored = MyScorer()(features=encoded((3, 4), (1, 1)))
    assert [scores.shape for scores in scored.scores] == [(12,), (1,)]
    assert all(scores.dtype == torch.float32 and scores.isfinite().all() for scores in scored.scores)


def test_the_scores_are_those_of_the_slow_rule() -> None:
    features = encoded((3, 4), (1, 1))
    for tile, scores in zip(features.tiles, MyScorer()(features=features).scores, strict=True):
        expected = [slow_rule(tile, token) for token in range(len(tile.features))]
        torch.testing.assert_close(scores, torch.tensor(expected))
