"""What is known of any stock module: how much its weights are, and where and in which type it computes."""

from __future__ import annotations

from typing import Any

import torch


def count_weights(*modules: Any) -> int:
    """Weights of all matrices and convolutions in the modules: those that multiply every token."""
    parts = [part for module in modules for part in module.modules()]
    matrices = (part.in_features * part.out_features for part in parts if isinstance(part, torch.nn.Linear))
    convolutions = (part.weight.numel() for part in parts if isinstance(part, (torch.nn.Conv2d, torch.nn.Conv3d)))
    return sum(matrices) + sum(convolutions)  # a quantised matrix has fewer elements, several weights in each


def count_bytes(*modules: Any) -> int:
    """Bytes of all weights of the modules."""
    return sum(weight.numel() * weight.element_size() for module in modules for weight in module.parameters())


def execution_device(module: torch.nn.Module) -> torch.device:
    """Where a module computes: on its weights' device, or where accelerate brings offloaded weights for a call."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device if not isinstance(device, int) else f"cuda:{device}")
    return next(iter(module.parameters())).device


def entering(module: torch.nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where and in the type that the module computes in: it may come from a cache or another model."""
    types = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
    return tensor.to(execution_device(module), next(types, tensor.dtype))


def copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on ``device`` that the host does not wait for (through pinned memory on CUDA)."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
