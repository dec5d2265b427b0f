"""Where weights go as they are read, and the memory that they need there and on the way."""

from __future__ import annotations

import pytest
import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.loading import device as devices
from fopru_graph.lvlm.loading import load
from fopru_graph.lvlm.loading.device import free_memory
from fopru_graph.lvlm.loading.load import READERS, load_model
from tests import tiny

SECOND = torch.device("cuda:1")


@pytest.fixture
def loaded_with(monkeypatch):
    """The arguments of transformers' loading, which puts everything on the CPU whatever they say."""
    seen = {}
    stock = transformers.LlavaForConditionalGeneration.from_pretrained

    def from_pretrained(source, **options):
        seen.update(options)
        options["device_map"] = options["device_map"] and {"": "cpu"}
        options.pop("quantization_config", None)
        return stock(source, **options)

    monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "from_pretrained", from_pretrained)
    return seen


@pytest.mark.parametrize("quantization", [None, "8bit"])
def test_weights_go_straight_to_the_one_device_and_without_hooks(folder, loaded_with, monkeypatch, quantization):
    monkeypatch.setattr(load, "choose_device", lambda _name: SECOND)
    monkeypatch.setattr(devices, "free_memory", lambda _device: 2**30)
    family = load_model(str(folder), "cuda:1", quantization=quantization).family
    assert loaded_with["device_map"] == {"": SECOND}
    assert not any(hasattr(module, "_hf_hook") for module in family.model.modules())
    stock = tiny.llava().model.state_dict()
    assert all(torch.equal(weight, stock[name]) for name, weight in family.model.state_dict().items())


def test_on_the_cpu_and_over_all_devices_loading_is_as_it_was(folder, loaded_with):
    load_model(str(folder), "cpu")
    assert loaded_with["device_map"] is None
    load_model(str(folder), "cpu", device_map="sequential")
    assert loaded_with["device_map"] == "sequential"


def test_a_host_too_small_for_weights_on_their_way_is_told_before_they_are_read(folder, loaded_with, monkeypatch):
    monkeypatch.setattr(load, "choose_device", lambda _name: SECOND)
    largest = max(weight.numel() for weight in tiny.llava().model.parameters()) * 4
    free = {SECOND: 2**30, torch.device("cpu"): READERS * largest - 1}
    monkeypatch.setattr(devices, "free_memory", free.__getitem__)
    with pytest.raises(UserError, match=r"does not fit: weights on their way to the device need .* cpu has"):
        load_model(str(folder), "cuda:1")
    assert not loaded_with
    free[torch.device("cpu")] += 1
    assert load_model(str(folder), "cuda:1")


def test_what_pytorch_has_reserved_and_nobody_uses_is_free_for_a_second_model(monkeypatch):
    figures = {
        "mem_get_info": {"cuda:0": (1, 80), "cuda:1": (10, 80)},  # free, total
        "memory_reserved": {"cuda:0": 70, "cuda:1": 20},
        "memory_allocated": {"cuda:0": 5, "cuda:1": 20},
    }
    for name, of in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, of=of: of[str(device)])
    assert free_memory(torch.device("cuda:0")) == 1 + 70 - 5
    assert free_memory(SECOND) == 10
