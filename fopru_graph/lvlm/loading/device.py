"""Devices: which one a name means here, what it computes, and whether a model fits into its memory."""

from __future__ import annotations

import psutil
import torch

from fopru_graph.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device that ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means here.

    Raises:
        UserError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown", "use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA device(s)", "use device: auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not here", "use device: auto")
    return device


def computes_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512-BF16 or AMX) and torch has the products; False if unknown."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch.cpu has no public question in all versions
    native = any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return native and torch.backends.mkldnn.is_available()


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; what PyTorch has reserved there and nobody uses counts as free."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


class DoesNotFit(UserError):
    """Weights of ``needed`` bytes are more than ``device`` has free."""

    def __init__(self, message: str, hint: str, needed: int, device: torch.device) -> None:
        super().__init__(message, hint)
        self.needed, self.device = needed, device


def check_memory(name: str, needed: int, device: torch.device, what: str = "its weights") -> None:
    """Refuse a model whose weights alone do not fit, before anything is loaded.

    Raises:
        DoesNotFit: ``needed`` bytes are not free; the message has both figures.
    """
    free = free_memory(device)
    if needed > free:
        gib = 2**30
        raise DoesNotFit(
            f"{name} does not fit: {what} need {needed / gib:.1f} GiB, {device} has {free / gib:.1f} GiB free",
            "use a smaller dtype, another device, or a smaller model",
            needed,
            device,
        )
