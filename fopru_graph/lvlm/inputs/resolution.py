"""Pictures encoded with a share of their pixels: the plain alternative to pruning, for fewer visual tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import PIL.Image
import torch

from fopru_graph.values import Image

_SLACK = 1e-6  # a square root is a hair off; a side of 24 · √(1/9) patches is 8


def shrunken(image: Image) -> Image:
    """The picture itself made smaller, each side by the root of its ``resolution``."""
    if image.resolution == 1:
        return image
    scale = math.sqrt(image.resolution)
    size = [max(1, round(side * scale)) for side in image.picture.size]
    return replace(image, picture=image.picture.resize(size, PIL.Image.Resampling.BICUBIC), resolution=1.0)


def shrunken_pixels(pixels: torch.Tensor, resolution: float, patch: int) -> torch.Tensor:
    """Preprocessed pixels of a tile made smaller, to whole patches: ⌊patches · √resolution⌋ a side, at least one.

    Args:
        pixels: (3, H, W), H and W multiples of ``patch``; at ``resolution`` 1 they are returned as they are.
        resolution: share of the pixels, in (0, 1].
        patch: pixels along a side of a patch.
    """
    if resolution == 1:
        return pixels
    scale = math.sqrt(resolution)
    size = [max(1, math.floor(side // patch * scale + _SLACK)) * patch for side in pixels.shape[-2:]]
    return torch.nn.functional.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]
