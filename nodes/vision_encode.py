"""VisionEncode: pictures to visual tokens."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="encode", cache="disk", device="model")
class VisionEncode(Node):
    """Run the vision tower; notes the attention of the layer that the projector reads."""

    def run(self, model: values.ModelHandle, image: values.Image | list[values.Image]) -> values.VisionFeatures:
        return model.family.encode(image if isinstance(image, list) else [image])
