"""Pictures between ComfyUI and us: IMAGE tensors, and PNG files that carry their prompt and workflow."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph import values
from fopru_graph.comfy import host
from fopru_graph.errors import UserError

if TYPE_CHECKING:
    import PIL.Image
    import torch

MOST_METADATA = 2**20  # bytes; readers refuse longer texts in a PNG


def is_batch(value: object) -> bool:
    """Whether it is an IMAGE: a tensor (B, H, W, C). Of what is linked to us nothing else is a plain tensor."""
    return getattr(value, "ndim", None) == 4 and hasattr(value, "detach")


def of_batch(batch: torch.Tensor) -> list[values.Image]:
    """The pictures of an IMAGE (B, H, W, C) of floats from 0 to 1, or a little beyond as upscalers make them.

    Raises:
        UserError: it has no pictures, another number of channels than 1, 3 or 4, or nan; or one is too large.
    """
    import torch

    from fopru_graph.lvlm.inputs.pictures import to_picture

    if not batch.numel() or batch.shape[3] not in (1, 3, 4):
        raise UserError(f"an IMAGE of the shape {tuple(batch.shape)} is no batch of pictures", "link (B, H, W, 3)")
    if not torch.isfinite(batch).all():
        raise UserError("the IMAGE holds nan or inf", "look at the node that made it")
    samples = (batch.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return [to_picture(picture.numpy()) for picture in samples]


def to_batch(picture: PIL.Image.Image) -> torch.Tensor:
    """A picture as an IMAGE: (1, H, W, 3), float32 from 0 to 1."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def save_temporary(picture: PIL.Image.Image, prompt: Any, extra: Mapping[str, Any] | None) -> Path:
    """Write a PNG under a new name to ComfyUI's temporary folder; dropping it on the canvas restores the workflow.

    Raises:
        UserError: the file cannot be written.
    """
    from fopru_graph.pictures.kept import save_png

    path = host.folder("temp") / f"fopru_{secrets.token_hex(8)}.png"
    save_png(picture, path, metadata(prompt, extra))
    return path


def metadata(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The texts of a PNG: the prompt, and the workflow from ``extra``; none if the user wants none or they are long."""
    if not host.metadata_wanted():
        return {}
    given = {"prompt": prompt} | dict(extra or {})
    keys = [key for key, value in given.items() if value is not None and key.isascii() and 0 < len(key) < 80]
    texts = {key: json.dumps(given[key]) for key in keys}
    if (size := sum(map(len, texts.values()))) >= MOST_METADATA:
        host.log.warning("the picture carries no workflow: prompt and workflow take %d KiB, 1 MiB at most", size >> 10)
        return {}
    return texts
