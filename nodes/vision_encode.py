from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Advanced, Context, Node, node


@node(category="encode", version="5", cache="disk")
class VisionEncode(Node):
    """Run the vision tower and record the attention of the layer that the projector reads, for scorers.

    Scorers find further ``layers`` by `tile.attention.at(layer)`.
    """

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        image: values.Image | values.Video | list[values.Image] | list[values.Video],
        together: Annotated[
            bool,
            Advanced(),
            Field(description="the pictures belong to one prompt: LLaVA-OneVision then encodes each as one tile"),
        ] = False,
        layers: Annotated[
            list[int | Annotated[float, Field(gt=0, lt=1)]] | None,
            Advanced(),
            Field(
                description="further encoder layers whose attention scorers read, from 0 or −1, or as shares of the "
                "depth; costs one more tap"
            ),
        ] = None,
    ) -> values.VisionFeatures:
        from fopru_graph.lvlm.inputs.demo_scenes import unknown_to_demo

        images = image if isinstance(image, list) else [image]
        if told := unknown_to_demo(model, images):
            ctx.warn(told)

        def ran(done: int, count: int) -> None:
            ctx.check_cancelled()
            ctx.progress(done, count, "layers")

        features = model.family.encode_layers(images, layers or (), together, ran)
        shares = [picture.resolution for picture in images if isinstance(picture, values.Image)]
        return replace(features, resolution=min(shares, default=1.0))
