"""A loaded model on another device: moved as a whole, with nothing left that knows where its weights were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fopru_graph.lvlm.families.family import Family


def is_movable(family: Family) -> bool:
    """Whether the weights can be moved: not those that are quantised, packed, or spread over devices by accelerate."""
    model = family.model
    quantised = getattr(model, "quantization_method", None) is not None
    hooked = any(hasattr(module, "_hf_hook") for module in model.modules())
    tensors = list(_tensors(model))
    packed = any(tensor.is_mkldnn for tensor in tensors)
    return not (quantised or hooked or packed) and len({tensor.device for tensor in tensors}) == 1


def bytes_on(family: Family, device: torch.device) -> int:
    """Bytes of the weights and buffers on a device; what several layers share counts once."""
    known = {id(tensor): tensor for tensor in _tensors(family.model)}
    return sum(tensor.numel() * tensor.element_size() for tensor in known.values() if tensor.device == device)


@torch.no_grad()
def move(family: Family, device: torch.device) -> None:
    """Move all weights and buffers, and forget what earlier runs left: captured steps know addresses.

    Where the device has no memory for all of them, the error of torch leaves the model where it was.
    """
    with family.lock:
        family.forget()
        moved: dict[int, torch.Tensor] = {}  # by the id of what is moved, so that shared weights stay shared
        for tensor in _tensors(family.model):
            if id(tensor) not in moved:
                moved[id(tensor)] = _moved(tensor, device)
        for table in _tables(family.model):
            table.update({name: moved[id(tensor)] for name, tensor in table.items() if tensor is not None})


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    copy = tensor.detach().to(device)
    return torch.nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else copy


def _tables(model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    for module in model.modules():
        yield module._parameters
        yield module._buffers


def _tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    return (tensor for table in _tables(model) for tensor in table.values() if tensor is not None)
