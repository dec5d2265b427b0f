"""The attention of every layer of the encoder, against stock attention weights and against the Significance node."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.attention_profile import attention_profile
from fopru_graph.nodes.significance import Significance
from tests import tiny
from tests.lvlm.test_invariants import fingerprint
from tests.lvlm.zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_the_layer_that_is_read_has_the_scores_of_the_node_and_nothing_is_left_behind(name):
    row = ZOO[name]
    family = row.build("sdpa")
    image = tiny.image(1, *row.sizes[-1])
    features = family.encode([image])  # stock towers that record hidden states put hooks of their own once and for all
    before = fingerprint(family)
    profile = attention_profile(family, image)
    assert fingerprint(family) == before
    number = next(i for i, tile in enumerate(features.tiles) if tile.tile_position is None)
    scores = Significance()(features=features, direction="received").scores[number]
    assert profile.grid == features.tiles[number].grid
    assert profile.received[profile.read_layer] is not None
    assert torch.equal(profile.received[profile.read_layer], scores)
    assert len(profile.received) == len(family.tower_layers)
    assert all(layer is None or layer.shape == scores.shape for layer in profile.received)


@pytest.mark.parametrize("name", ["llava", "internvl"])
def test_every_layer_has_the_attention_weights_of_stock(name):
    row = ZOO[name]
    image = tiny.image(2)
    profile = attention_profile(row.build("sdpa"), image)
    eager = row.build("eager")
    noted: list[torch.Tensor] = []
    hooks = [
        eager.attention_module(layer).register_forward_hook(lambda _m, _i, out: noted.append(out[1]))
        for layer in range(len(eager.tower_layers))
    ]
    pixels = eager.encode([image]).pixels[0][None]
    noted.clear()
    with torch.inference_mode():
        eager.tower(pixels)
    for hook in hooks:
        hook.remove()
    units = None if name == "llava" else eager.patch_groups(profile.grid)
    assert len(noted) == len(profile.received)
    for weights, received in zip(noted, profile.received, strict=True):
        patches = weights[0].mean(0)[1:, 1:].mean(0)
        assert torch.allclose(received, patches if units is None else patches[units].mean(1), atol=1e-6)


def test_layers_above_the_one_that_is_read_are_there():
    family = tiny.llava(vision_layers=6, vision_feature_layer=-4)
    profile = attention_profile(family, tiny.image())
    assert profile.read_layer == 2
    assert all(layer is not None for layer in profile.received)


def test_layers_that_see_windows_have_none():
    family = ZOO["qwen2_5_vl"].build("sdpa")
    whole = set(family.tower.fullatt_block_indexes)
    profile = attention_profile(family, tiny.image(0, 160, 120))
    assert {layer for layer, received in enumerate(profile.received) if received is not None} == whole
    assert profile.read_layer == max(whole)


def test_a_failing_tower_leaves_nothing_behind():
    family = tiny.llava()
    before = fingerprint(family)
    hook = family.tower_layers[-1].register_forward_hook(lambda *_: 1 / 0)  # above the layer that is read
    with pytest.raises(ZeroDivisionError):
        attention_profile(family, tiny.image())
    hook.remove()
    assert fingerprint(family) == before
    with pytest.raises(UserError, match="does not name"):
        attention_profile(tiny.llava(vision_feature_layer=-9), tiny.image())
