"""LLaVA-1.5 and LLaVA-1.6, as `tests.tiny` builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fopru_graph.lvlm.families.family import Family
from fopru_graph.values import Image
from tests import tiny
from tests.lvlm.zoo.rows import Row


def inputs(family: Family, images: Sequence[Image]) -> dict[str, Any]:
    """What the stock model needs: the batch of its image processor."""
    batch = family.processor.image_processor([image.picture for image in images], return_tensors="pt")
    return {name: batch[name] for name in ("pixel_values", "image_sizes") if name in batch}


ROWS = {
    "llava": Row(lambda attention: tiny.llava(attention=attention, seed=50), inputs),
    "llava_next": Row(lambda attention: tiny.llava(attention=attention, anyres=True, seed=51), inputs),
}
