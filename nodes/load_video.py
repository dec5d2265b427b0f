from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="load")
class LoadVideo(Node):
    """Read frames, evenly spaced, from a folder of pictures in the order of their names or from an animated picture."""

    def run(
        self,
        path: Annotated[str, Field(description="a folder of pictures, or an animated GIF, WebP or PNG file")],
        frames: Annotated[int, Field(ge=1, description="number of frames; all where there are fewer")] = 8,
    ) -> values.Video:
        from fopru_graph.lvlm.inputs.video import load_video

        return load_video(path, frames)

    def fingerprint(self, path: str = "") -> str:
        """The frames' content, so that a changed video is encoded again."""
        from fopru_graph.lvlm.inputs.video import fingerprint

        return fingerprint(path)
