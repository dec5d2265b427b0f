"""Weights of linear layers in oneDNN's own layout, for CPUs: brought into it once instead of in every product.

torch gives float32 products to MKL, which is slow on processors of other makers than its own, and oneDNN gets weights
in bfloat16 in torch's layout, call after call. What is faster here, a short measurement tells (`worth_packing`).
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

_WIDTH = 512  # of the language model; of narrower ones the fixed cost of a call takes back what its product gains
_WORTH = 0.8  # what the ratios of time, multiplied, must be below; far from what is measured anywhere, see docs
_SIDE, _ROWS, _TURNS = 1024, 128, 6  # of the measured products: rows of a short prompt, and one of a decoding step

_HELD = 2**26  # bytes that may be freed before they are given back

# Operations of torch's compiler, with no public name; None where torch has them not.
_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_reorder: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)


class PackedLinear(torch.nn.Linear):
    """A linear layer whose ``weight`` has oneDNN's layout; type, shape and size can be read, its elements cannot.

    Copying, pickling, saving and moving it raise.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(…, F) to (…, O), as the layer before packing up to rounding; what oneDNN cannot do is done from a copy."""
        if input.requires_grad or input.dtype != self.weight.dtype:
            return functional.linear(input, self.weight.to_dense(), self.bias)
        result: torch.Tensor = _product(input, self.weight, self.bias, "none", [], "")
        return result


@torch.no_grad()
def pack(model: torch.nn.Module) -> None:
    """Pack all linear layers in place, and free their weights as they were on the way.

    Subclasses (quantised layers) stay as they are, and so does a weight with several owners, e.g. an output head that
    is the embeddings too: it would be there twice.
    """
    modules = list(model.modules())
    owners = Counter(id(weight) for module in modules for weight in module._parameters.values())
    freed = 0
    for module in modules:
        if type(module) is torch.nn.Linear and owners[id(module.weight)] == 1:
            freed += module.weight.nbytes
            module.weight = torch.nn.Parameter(_reorder(module.weight), requires_grad=False)
            module.__class__ = PackedLinear  # keeps its hooks, its name and whatever else was set on it
            if freed > _HELD:
                _give_back()
                freed = 0
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if not tensor.is_mkldnn:
            tensor.data = tensor.data.clone()  # as read, one of them holds all of the checkpoint's file in memory
    _give_back()


def _give_back() -> None:
    """Give freed memory back: glibc keeps it for the threads that read the weights, so that it would be held twice."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # other C libraries have none


def worth_packing(config: Mapping[str, Any], weight_type: str) -> bool:
    """Whether packing makes the model of this config.json faster on this CPU, by one answer for all wide ones.

    A narrow one is never packed, so that it computes everywhere as torch does.
    """
    text = config.get("text_config") or config
    wide = text.get("hidden_size", _WIDTH) >= _WIDTH  # left out where it is the default of a large model
    return wide and weight_type in ("float32", "bfloat16") and _faster(weight_type)


@functools.cache
def _faster(weight_type: str) -> bool:
    """Measure a product of many rows and one of a single row, packed and not; takes 0.2 s, once a process.

    What counts is the time that this thread computed, whatever else runs: keys of caches and cells follow from the
    answer, so it must be the same each time.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _ratio(getattr(torch, weight_type)) < _WORTH
    except (RuntimeError, TypeError, ArithmeticError):  # torch or the processor lacks it, or the clock is too coarse
        return False
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _ratio(dtype: torch.dtype) -> float:
    """Time of packed by plain products, the two ratios multiplied.

    Raises:
        ArithmeticError: the results differ by more than rounding.
    """
    weight = torch.linspace(-1, 1, _SIDE * _SIDE).view(_SIDE, _SIDE).to(dtype)  # draws nothing: seeds stay as they are
    packed = _reorder(weight)
    ratio = 1.0
    for rows in (weight[:_ROWS], weight[:1]):
        ways = (
            functools.partial(_product, rows, packed, None, "none", [], ""),
            functools.partial(functional.linear, rows, weight),
        )
        found, expected = (way().float() for way in ways)
        if not (found - expected).abs().max() <= 0.02 * expected.abs().max():
            raise ArithmeticError("the product of packed weights is another one")
        turns = [[_seconds(way) for way in ways] for _ in range(_TURNS)]
        quickest = [min(times) for times in zip(*turns, strict=True)]
        ratio *= quickest[0] / quickest[1]
    return ratio


def _seconds(way: Callable[[], object]) -> float:
    start = time.thread_time()
    way()
    return time.thread_time() - start
