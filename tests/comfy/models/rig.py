"""What the tests of models in ComfyUI work with: a loader that can be watched, others' models, and answers."""

from __future__ import annotations

import contextlib
import gc
import weakref

import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.comfy.standin.model_management import ModelPatcher
from tests.lvlm.accelerator import move

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Loader:
    """Makes models as a LoadModel node does, on a device, and keeps none of them."""

    def __init__(self, device=CPU, seed=90, quantised=False):
        self.device, self.seed, self.quantised, self.made = device, seed, quantised, []

    def __call__(self):
        family = tiny.llava(seed=self.seed)
        if self.quantised:
            family.model.quantization_method = "bitsandbytes"
        if self.device != CPU:
            move(family.model, self.device)
        handle = ModelHandle(f"tiny {self.seed}", family)
        self.made.append([weakref.ref(handle), weakref.ref(family), weakref.ref(family.model.lm_head.weight)])
        return handle

    @property
    def alive(self):
        """How many of the models' handles, families and weights are still in memory."""
        return sum(ref() is not None for refs in self.made for ref in refs)


class Diffusion(torch.nn.Module):
    """A model of somebody else."""


@contextlib.contextmanager
def without_collector():
    """Nothing is freed by the collector of circles: what must be freed, has no circle."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def answer(handle, loop="static"):
    family = handle.family
    tokens = family.project(family.encode([tiny.image()]), None)
    return generate(family, tokens, ["what?"], max_new_tokens=4, loop=loop)


def diffusion(share, gpu):
    """A patcher of a diffusion model that takes such a share of the device."""
    return ModelPatcher(Diffusion(), GPU, CPU, size=int(share * gpu.capacity))


def where(handle):
    return {tensor.device for tensor in [*handle.family.model.parameters(), *handle.family.model.buffers()]}
