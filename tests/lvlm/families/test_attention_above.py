"""The attention of the layer above the one that is read, against the projections of the stock tower run to its end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.nodes.attention_above import AttentionAbove
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.downsample import Downsample
from fopru_graph.storage import TensorCodec
from fopru_graph.values import ModelHandle, VisionFeatures
from tests import tiny
from tests.lvlm.zoo import ZOO


def above(family, features) -> VisionFeatures:
    return AttentionAbove()(model=ModelHandle("tiny", family), features=features)


@torch.inference_mode()
def stock(family, features, layer):
    """What the projections of a layer of the stock tower put out, (T, 1 + N, D) each."""
    tower, noted = family.model.model.vision_tower, {}
    module = tower.encoder.layers[layer].self_attn
    hooks = [
        getattr(module, name).register_forward_hook(lambda _m, _i, out, name=name: noted.update({name: out}))
        for name in ("q_proj", "k_proj")
    ]
    tower(torch.stack(features.pixels).to(tower.dtype), interpolate_pos_encoding=True)
    for hook in hooks:
        hook.remove()
    return noted["q_proj"], noted["k_proj"]


@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({}, 3),
        ({"vision_feature_layer": -3}, 2),
        ({"vision_feature_layer": 1}, 1),
        ({"vision_feature_layer": [-2, 1]}, 1),  # the layer named last is the one whose attention scores
        ({"vision_feature_layer": [1, -2]}, 3),
        ({"attention": "eager"}, 3),
        ({"anyres": True}, 3),
        ({"dtype": torch.bfloat16}, 3),
    ],
    ids=str,
)
def test_queries_and_keys_are_those_of_the_stock_tower(options, layer):
    family = tiny.llava(seed=4, **options)
    features = family.encode([tiny.image(0, 64, 64), tiny.image(1, 64, 64)])
    query, key = stock(family, features, layer)
    noted = above(family, features)
    for i, (tile, old) in enumerate(zip(noted.tiles, features.tiles, strict=True)):
        for ours, theirs in ((tile.attention.query, query[i]), (tile.attention.key, key[i])):
            assert ours.shape == (4, 17, 8)
            assert torch.allclose(
                ours.transpose(0, 1).flatten(1), theirs, atol=0.05 if family.dtype.itemsize == 2 else 1e-5
            )
        assert (tile.attention.scale, tile.attention.prefix) == (8**-0.5, 1)
        assert tile.features is old.features and old.attention.query is not tile.attention.query
    assert features.report() and not noted.report()


def test_prumerge_scores_by_one_wide_head_of_that_layer():
    family = tiny.llava(seed=5)
    features = family.encode([tiny.image()])
    query, key = stock(family, features, 3)
    expected = torch.softmax(query[0, :1] @ key[0].T / 32**0.5, -1)[0, 1:]  # width 32
    found = ClsAttention()(features=above(family, features), heads="joint").scores[0]
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(ClsAttention()(features=features, heads="joint").scores[0], expected, atol=1e-3)


def test_features_from_the_disk_have_it_too(tmp_path):
    family = tiny.llava(seed=7)
    features = family.encode([tiny.image()])
    TensorCodec().dump(features, tmp_path)
    loaded = above(family, TensorCodec().load(tmp_path)).tiles[0].attention
    assert torch.equal(loaded.query, above(family, features).tiles[0].attention.query)


def test_padding_stands_before_the_visual_tokens():
    family = tiny.llava(seed=8, anyres=True)
    features = family.encode([tiny.image(0, 200, 20)])
    tile, found = features.tiles[1], above(family, features).tiles[1].attention
    assert tile.grid == (2, 4) and found.prefix == tile.attention.prefix == 1 + 8
    batch = family.processor.image_processor([tiny.image(0, 200, 20).picture], return_tensors="pt")
    query, _ = stock(family, replace(features, pixels=(batch["pixel_values"][0, 1],)), 3)
    order = [0, *range(1, 5), *range(13, 17), *range(5, 13)]  # CLS, the padded first and last row, the visual tokens
    assert torch.allclose(found.query.transpose(0, 1).flatten(1), query[0, order], atol=1e-5)


def test_a_downsampled_picture_has_its_own():
    family = tiny.llava(seed=6)
    features = family.encode([Downsample()(image=tiny.image(), ratio=0.25)])
    query, _ = stock(family, features, 3)
    found = above(family, features).tiles[0].attention.query
    assert found.shape == (4, 5, 8) and torch.allclose(found.transpose(0, 1).flatten(1), query[0], atol=1e-5)


@pytest.mark.parametrize("layer", [-1, 4])
def test_above_the_last_layer_there_is_none(layer):
    family = tiny.llava(vision_feature_layer=layer)
    with pytest.raises(UserError, match="layer 3 is the last") as refused:
        above(family, family.encode([tiny.image()]))
    assert "AttentionAbove" in refused.value.hint


def test_projected_features_lead_to_no_layer():
    family = ZOO["llava_onevision"].build("sdpa")
    family.model.config.vision_feature_layer = -2
    features = family.encode([tiny.image(0, 56, 56)])
    assert above(family, features).tiles[0].attention.prefix == 0
    with pytest.raises(UserError, match="projected already"):
        above(family, family.encode([tiny.image(0, 112, 112)]))  # shrunk after projecting
