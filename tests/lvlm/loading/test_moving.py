"""Models that move to another device: whole or not at all, the same model before and after."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.loading import moving
from fopru_graph.lvlm.loading.moving import bytes_on, is_movable, move
from fopru_graph.lvlm.loading.packed import pack
from tests import tiny
from tests.lvlm.accelerator import simulated
from tests.lvlm.test_invariants import everything
from tests.lvlm.zoo import ZOO

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def tensors(family):
    return {**dict(family.model.named_parameters()), **dict(family.model.named_buffers())}


def tied():
    """A model whose output head is its embeddings."""
    family = ZOO["qwen2_vl"].build("sdpa")
    family.model.lm_head.weight = family.model.get_input_embeddings().weight
    return family


def test_all_weights_and_buffers_go_and_come_back_as_they_were():
    family = tiny.llava()
    family.model.lm_head.requires_grad_(False)
    before = {name: (type(t), t.requires_grad, t.detach().clone()) for name, t in tensors(family).items()}
    with simulated():
        move(family, GPU)
        assert {tensor.device for tensor in tensors(family).values()} == {GPU} == {family.device}
        move(family, CPU)
    after = tensors(family)
    assert list(after) == list(before)
    for name, (kind, learns, values) in before.items():
        assert type(after[name]) is kind and after[name].requires_grad == learns and torch.equal(after[name], values)


def test_shared_weights_stay_shared_and_count_once():
    family = tied()
    size = bytes_on(family, CPU)
    assert size == sum(tensor.nbytes for tensor in {id(t): t for t in tensors(family).values()}.values())
    with simulated():
        move(family, GPU)
        assert family.model.lm_head.weight is family.model.get_input_embeddings().weight
        assert (bytes_on(family, GPU), bytes_on(family, CPU)) == (size, 0)


def test_a_move_forgets_what_earlier_runs_left():
    family = tiny.llava()
    tokens = everything(family, 1)
    generate(family, tokens, ["x"], max_new_tokens=3, loop="static")
    assert family.steps and family.last_prompt
    move(family, CPU)
    assert not family.steps and family.last_prompt is None


def test_where_memory_ends_halfway_nothing_was_moved(monkeypatch):
    family = tiny.llava()
    before = tensors(family)
    copies, limit = [], len(before) // 2

    def full(tensor, device):
        if len(copies) == limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        copies.append(moved(tensor, device))
        return copies[-1]

    moved = moving._moved
    monkeypatch.setattr(moving, "_moved", full)
    with simulated(), pytest.raises(torch.OutOfMemoryError):
        move(family, GPU)
    after = tensors(family)
    assert len(copies) == limit > 0 and all(after[name] is tensor for name, tensor in before.items())


def test_what_can_be_moved():
    assert is_movable(tiny.llava())
    quantised, packed, spread, hooked = (tiny.llava() for _ in range(4))
    quantised.model.quantization_method = "bitsandbytes"
    pack(packed.model)
    spread.model.lm_head.weight = torch.nn.Parameter(spread.model.lm_head.weight.to("meta"), requires_grad=False)
    hooked.model.lm_head._hf_hook = object()
    assert not any(map(is_movable, (quantised, packed, spread, hooked)))
    assert bytes_on(packed, CPU) == bytes_on(tiny.llava(), CPU)
