"""``dtype: auto`` on a CPU: bfloat16 for half precision where the CPU computes it, and results know which it was."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.loading.checkpoint import DEMO
from fopru_graph.lvlm.loading.device import computes_bfloat16
from fopru_graph.lvlm.loading.load import load_model, model_identity
from tests import tiny
from tests.lvlm.loading.test_load import edit

ASKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def pretend(monkeypatch, *native):
    """A CPU that computes bfloat16 by what ``native`` names, if anything."""
    for ask in ASKS:
        monkeypatch.setattr(torch.cpu, ask, lambda ask=ask: ask in native, raising=False)


@pytest.fixture
def able(monkeypatch):
    pretend(monkeypatch, *ASKS)


@pytest.fixture
def stored(tmp_path):
    """Makes a checkpoint in the type that is named."""

    def save(dtype):
        family = tiny.llava(dtype=dtype)
        family.model.save_pretrained(tmp_path)
        family.processor.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def loaded_and_named(name, **options):
    """The type in which a checkpoint is loaded, which must be the one that its identity names."""
    handle = load_model(name, "cpu", **options)
    assert {weight.dtype for weight in handle.family.model.parameters()} == {handle.family.dtype}
    assert model_identity(name, "cpu", **options)["dtype"] == handle.dtype
    return handle.dtype


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("native", "expected"), [(ASKS[:1], "bfloat16"), (ASKS[1:], "bfloat16"), ((), "float32")])
def test_half_precision_is_bfloat16_where_the_cpu_computes_it(stored, monkeypatch, half, native, expected):
    pretend(monkeypatch, *native)
    assert loaded_and_named(stored(half)) == expected


def test_a_torch_that_cannot_tell_or_has_no_fast_products_gets_float32(stored, monkeypatch, able):
    folder = stored(torch.bfloat16)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert loaded_and_named(folder) == "float32"
    monkeypatch.undo()
    for ask in ASKS:
        monkeypatch.delattr(torch.cpu, ask, raising=False)
    assert not computes_bfloat16() and loaded_and_named(folder) == "float32"


def test_float32_stays_and_what_is_asked_for_holds(stored, able):
    folder = stored(torch.float32)
    assert loaded_and_named(folder) == "float32"
    assert loaded_and_named(folder, dtype="float16") == "float16"
    assert loaded_and_named(stored(torch.bfloat16), dtype="float32") == "float32"


def test_a_checkpoint_that_names_no_type_is_float32(stored, able, tmp_path):
    folder = stored(torch.bfloat16)
    edit(tmp_path / "config.json", dtype=None)
    assert loaded_and_named(folder) == "float32"


def test_the_type_may_have_its_former_name(stored, able, tmp_path):
    folder = stored(torch.bfloat16)
    edit(tmp_path / "config.json", dtype=None, torch_dtype="float16")
    assert loaded_and_named(folder) == "bfloat16"


@pytest.mark.parametrize("name", ["demo", str(DEMO)])
def test_the_bundled_model_computes_in_float32_everywhere(able, name):
    assert loaded_and_named(name) == "float32"


@pytest.mark.parametrize("where", ["checkpoint", "option"])
def test_what_is_not_quantised_stays_float32(stored, able, tmp_path, monkeypatch, where):
    folder = stored(torch.bfloat16)
    options = {"quantization": "8bit"} if where == "option" else {}
    if where == "checkpoint":
        edit(tmp_path / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    asked = []

    def from_pretrained(*_args, **given):
        asked.append(given["dtype"])
        raise OSError("far enough")

    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", from_pretrained)
    with pytest.raises(Exception, match="far enough"):
        load_model(folder, "cpu", **options)
    assert asked == [model_identity(folder, "cpu", **options)["dtype"]] == ["float32"]


@pytest.mark.parametrize("device_map", ["auto", "sequential"])
@pytest.mark.parametrize(("native", "expected"), [(ASKS, "bfloat16"), ((), "float32")])
def test_a_device_map_without_a_gpu_follows_the_same_rule(stored, monkeypatch, device_map, native, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pretend(monkeypatch, *native)
    folder = stored(torch.bfloat16)
    for device in ("auto", "cpu"):
        assert load_model(folder, device, device_map=device_map).dtype == expected
        assert model_identity(folder, device, device_map=device_map)["dtype"] == expected


def test_a_random_model_is_as_a_checkpoint_in_half_precision(monkeypatch):
    for native, expected in ((ASKS, "bfloat16"), ((), "float32")):
        pretend(monkeypatch, *native)
        assert model_identity("random:llava-cpu", "cpu", packed="never")["dtype"] == expected
        assert model_identity("random:llava-cpu", "cpu", dtype="float32", packed="never")["dtype"] == "float32"
