"""Patches that come cut are embedded together: the convolution's own values, without its cost for each."""

from __future__ import annotations

import accelerate
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopru_graph.lvlm.families.patch_embedding import embed_patches, fast_patches
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.zoo import everything
from tests.lvlm.zoo.qwen_vl import BUILD

HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # half a step between neighbours, as a share of the value


class Convolutions(TorchDispatchMode):
    """The shapes of all convolutions' outputs inside the ``with`` block."""

    def __init__(self):
        super().__init__()
        self.outputs = []

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if "conv" in function.name():
            self.outputs.append(tuple(output.shape))
        return output


def embedding(bias, dtype, width=48, patch=14):
    torch.manual_seed(3)
    convolution = torch.nn.Conv3d(3, width, (2, patch, patch), (2, patch, patch), bias=bias)
    return convolution.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [4, 61, 60, 148, 1024])  # 61 patches have no row but of one, 148 make rows of 37
def test_float32_patches_are_embedded_as_the_convolution_does_it_bit_for_bit(bias, count):
    convolution = embedding(bias, torch.float32)
    patches = torch.randn(count, 3, 2, 14, 14)
    expected = convolution(patches)
    with fast_patches(convolution):
        assert torch.equal(convolution(patches), expected)
    assert torch.equal(convolution(patches), expected)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bias", [False, True])
def test_half_precision_is_within_the_rounding_of_one_sum(dtype, bias):
    convolution = embedding(bias, dtype)
    patches = torch.randn(148, 3, 2, 14, 14).to(dtype)
    exact = embedding(bias, dtype).double()(patches.double())
    with fast_patches(convolution):
        embedded = convolution(patches)
    assert embedded.dtype == dtype
    assert embedded.shape == (148, 48, 1, 1, 1)
    assert ((embedded.double() - exact).abs() <= HALF[dtype] * exact.abs() + 1e-5).all()
    assert ((convolution(patches).double() - exact).abs() <= HALF[dtype] * exact.abs() + 1e-5).all()  # stock's bound


def test_no_output_row_is_a_single_patch():
    with Convolutions() as seen:
        embed_patches(torch.randn(2304, 3, 2, 14, 14), embedding(False, torch.float32).weight, None)
    assert seen.outputs == [(36, 48, 1, 1, 64)]


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_runs_no_convolution(dtype):
    with Convolutions() as seen:
        embed_patches(torch.randn(60, 3, 2, 14, 14).to(dtype), embedding(False, dtype).weight, None)
    assert seen.outputs == []


@pytest.mark.parametrize("name", BUILD)
def test_qwen_towers_embed_all_patches_of_a_call_together(name):
    family = BUILD[name]()
    with Convolutions() as seen:
        everything(family, [tiny.image(0, 112, 112), tiny.image(1, 150, 60)])  # 64 and 40 patches
    assert seen.outputs == [(2, 32, 1, 1, 52)]
    frames = tuple(tiny.image(i, 70, 90).picture for i in range(4))
    with Convolutions() as seen:
        everything(family, [Video(frames, "video")])
    assert len(seen.outputs) == 1
    assert seen.outputs[0][-1] > 1


def test_the_convolution_is_as_before_when_encoding_fails():
    family = BUILD["qwen2_vl"]()
    convolution = family.tower.patch_embed.proj
    before = dict(vars(convolution))
    with pytest.raises(ZeroDivisionError), fast_patches(convolution):
        raise ZeroDivisionError
    assert dict(vars(convolution)) == before


def test_weights_that_are_off_the_device_are_brought_in():
    family, image = BUILD["qwen2_vl"](), tiny.image(0, 112, 112)
    expected = everything(family, [image]).embeddings[0]
    accelerate.cpu_offload(family.tower.patch_embed)
    assert family.tower.patch_embed.proj.weight.is_meta
    assert torch.equal(everything(family, [image]).embeddings[0], expected)
