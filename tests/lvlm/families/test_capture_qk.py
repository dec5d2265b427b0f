"""The one-layer tap against stock attention weights, and against the stock tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopru_graph.lvlm.families.capture_qk import capture_qk
from fopru_graph.nodes.significance import Significance
from fopru_graph.pruning.attention import CPU_BLOCK, attention_means
from tests import tiny


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [-1, -2, -3, 2])
def test_features_and_attention_are_those_of_stock_at_the_layer_that_is_read(attention, layer):
    family = tiny.llava(attention=attention, vision_feature_layer=layer, seed=3)
    eager = tiny.llava(attention="eager", vision_feature_layer=layer, seed=3)
    features = family.encode([tiny.image(0), tiny.image(1)])
    pictures = [tiny.image(i).picture for i in (0, 1)]
    pixels = family.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    stock = eager.model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
    for i, tile in enumerate(features.tiles):
        assert torch.allclose(tile.features, stock.hidden_states[layer][i, 1:], atol=1e-5)
        # hidden_states[k] is the output of layer k − 1, for negative k too, since it has one entry more
        index = layer - 1 if layer > 0 else layer
        full = stock.attentions[index][i].mean(0)[1:, 1:]
        given, received = attention_means(
            tile.attention.query, tile.attention.key, tile.attention.scale, tile.attention.prefix, block=5 * 4 * 17
        )
        assert torch.allclose(given, full.mean(1), atol=1e-6)
        assert torch.allclose(received, full.mean(0), atol=1e-6)


def test_several_feature_layers_are_joined_and_the_last_is_tapped():
    family = tiny.llava(vision_feature_layer=[-3, -2])
    features = family.encode([tiny.image()])
    assert features.tiles[0].features.shape == (16, 64)
    single = tiny.llava(vision_feature_layer=-2)
    assert features.tiles[0].attention.query.shape == single.encode([tiny.image()]).tiles[0].attention.query.shape


def test_the_tower_stops_after_the_layer_that_is_read():
    family = tiny.llava(vision_layers=6, vision_feature_layer=-3)
    ran = []
    for i, layer in enumerate(family.model.model.vision_tower.encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    family.encode([tiny.image()])
    assert ran == [0, 1, 2, 3]


def test_seen_is_the_picture_the_encoder_got():
    family = tiny.llava()
    seen = family.encode([tiny.image()]).seen(0)
    assert seen.dtype == torch.uint8
    resized = torch.from_numpy(np.array(tiny.image().picture.resize((32, 32), 3), dtype=int))
    assert (seen.int() - resized).abs().float().mean() < 2


def test_a_module_is_tapped_once_at_a_time_and_untapped_after_a_failure():
    module = tiny.llava().layers[0].self_attn
    config = module.config
    with pytest.raises(RuntimeError, match="tapped already"), capture_qk(module, print):  # noqa: SIM117
        with capture_qk(module, print):
            pass
    assert module.config is config
    with capture_qk(module, lambda *_: None):
        assert module.config is not config


class Bytes(TorchDispatchMode):
    """Counts the bytes of every tensor that comes into being, and the largest of them."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view:
            size = result.numel() * result.element_size()
            self.total, self.largest = self.total + size, max(self.largest, size)
        return result


def test_scoring_takes_the_same_memory_whatever_the_number_of_layers():
    counted = []
    for layers in (3, 12):
        family = tiny.llava(vision_layers=layers, grid=(6, 6))
        features = family.encode([tiny.image()])
        with Bytes() as bytes_made:
            Significance()(features=features)
        attention = features.tiles[0].attention
        kept = (attention.query.untyped_storage().nbytes(), attention.key.untyped_storage().nbytes())
        counted.append((bytes_made.total, bytes_made.largest, kept))
    assert counted[0] == counted[1]
    assert counted[0][1] == 4 * 36 * 37 * 4  # one map of one layer: heads × visual × all tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_map_is_formed_in_blocks(dtype):
    query, key = torch.randn(2, 8, 1200, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    with Bytes() as bytes_made:
        given, received = attention_means(query, key, 0.25, 1)
    assert bytes_made.largest <= 4 * CPU_BLOCK < 4 * 8 * 1199 * 1200  # never all of it at once
    full = torch.softmax(query.double() @ key.double().transpose(1, 2) * 0.25, -1).mean(0)[1:, 1:]
    assert torch.allclose(given.double(), full.mean(1), rtol=1e-4)
    assert torch.allclose(received.double(), full.mean(0), rtol=1e-4)


def test_half_precision_does_not_overflow():
    """Logits beyond 65504 before they are scaled: in float16 they would be infinite and every weight not a number."""
    query, key = torch.full((2, 1, 5, 64), 40.0, dtype=torch.float16)
    key[0, 2] = 40.5
    assert (query.float() @ key.float().transpose(1, 2)).max() > 65504
    _, received = attention_means(query, key, 64**-0.5)
    assert received.isfinite().all() and received.argmax() == 2
