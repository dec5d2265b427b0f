"""Values in caches: what goes to disk comes back, what cannot be stored is refused, and values tell their bytes."""

from __future__ import annotations

import pytest
import torch

from fopru_graph import values
from fopru_graph.graph import CorruptEntry, DiskCache, MemoryCache
from fopru_graph.storage import TensorCodec
from tests import tiny


def equal(a, b) -> bool:
    """Equality of nested values with tensors."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(equal(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_come_back_as_they_were(tmp_path, dtype):
    features = tiny.llava(dtype=dtype).encode([tiny.image(0), tiny.image(1)])
    TensorCodec().dump(features, tmp_path)
    assert equal(TensorCodec().load(tmp_path), features)


def test_features_with_further_layers_come_back_too(tmp_path):
    features = tiny.llava(vision_layers=4).encode_layers([tiny.image(0)], [0, 0.25])
    TensorCodec().dump(features, tmp_path)
    loaded = TensorCodec().load(tmp_path)
    assert equal(loaded, features)
    assert [loaded.tiles[0].attention.at(layer).layer for layer in (0, 0.25, None)] == [
        0,
        1,
        features.tiles[0].attention.layer,
    ]


def test_plain_values_and_views_of_one_tensor(tmp_path):
    base = torch.arange(6)
    value = [1, 2.5, "x", None, True, (base[:3], base[3:]), [base.view(2, 3).T]]
    TensorCodec().dump(value, tmp_path)
    assert equal(TensorCodec().load(tmp_path), value)


@pytest.mark.parametrize("value", [object(), {"a": 1}, lambda: 1, values.InLLMPruner(len, 1, 0.5)])
def test_what_cannot_be_stored_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match="cannot be stored"):
        TensorCodec().dump(value, tmp_path)


def test_a_spoilt_entry_is_never_read(tmp_path):
    cache = DiskCache(tmp_path, TensorCodec())
    features = tiny.llava().encode([tiny.image()])
    cache.put("a" * 64, {"output": features})
    assert equal(cache.get("a" * 64)["output"], features)
    for path in tmp_path.rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(CorruptEntry):
        cache.get("a" * 64)


def test_the_memory_cache_knows_the_bytes_of_tensors_and_pictures_but_a_model_counts_nothing():
    model, image = tiny.llava(), tiny.image(0)
    features = model.encode([image])
    cache = MemoryCache()
    cache.put("model", {"output": values.ModelHandle("tiny", model)})
    assert cache.nbytes == 0
    cache.put("image", {"output": [image, values.Video((image.picture, image.picture), "v")]})
    height, width = image.shape
    assert cache.nbytes == 3 * 3 * height * width
    before, tile = cache.nbytes, features.tiles[0]
    cache.put("features", {"output": features})
    held = (tile.features, tile.prefix_features, tile.attention.query, tile.attention.key, *features.pixels)
    assert cache.nbytes - before == sum(tensor.nbytes for tensor in held)
