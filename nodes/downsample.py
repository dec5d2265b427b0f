from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class Downsample(Node):
    """Encode the picture with a share of its pixels; the model's own rule says how many visual tokens that gives.

    LLaVA-1.5 gets that share of its patches, Qwen-VL and Mistral 3 make fewer tokens of a smaller picture, LLaVA-NeXT
    and InternVL may cut it into fewer tiles; models that resize every picture to a fixed size keep their number.
    """

    def run(
        self,
        image: values.Image | list[values.Image],
        ratio: Annotated[float, Field(gt=0, le=1, description="share of the pixels to encode, in (0, 1]")] = 0.25,
    ) -> values.Image | list[values.Image]:
        if isinstance(image, list):
            return [self.run(picture, ratio) for picture in image]
        return replace(image, resolution=image.resolution * ratio)
