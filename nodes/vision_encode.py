from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="encode", version="2", cache="disk")
class VisionEncode(Node):
    """Run the vision tower and record the attention of the layer that the projector reads, for scorers."""

    def run(
        self,
        model: values.ModelHandle,
        image: values.Image | values.Video | list[values.Image] | list[values.Video],
        together: Annotated[
            bool,
            Field(description="the pictures belong to one prompt: LLaVA-OneVision then encodes each as one tile"),
        ] = False,
    ) -> values.VisionFeatures:
        images = image if isinstance(image, list) else [image]
        family = model.family
        return family.encode_together(images) if together else family.encode(images)
