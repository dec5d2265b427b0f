from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Advanced, InputPath, Node, node


@node(category="load")
class LoadVideo(Node):
    """Read frames, evenly spaced in time, of a folder of pictures, an animated picture or a video file (needs PyAV)."""

    def run(
        self,
        path: Annotated[
            str,
            InputPath(kind="video"),
            Field(description="a folder of pictures, an animated GIF, WebP or PNG, or MP4, WebM …"),
        ],
        frames: Annotated[
            int | None, Field(ge=1, description="number of frames, all where there are fewer; this or fps")
        ] = None,
        fps: Annotated[
            float | None, Field(gt=0, description="frames to take a second, all where there are fewer; this or frames")
        ] = None,
        folder_fps: Annotated[
            float | None,
            Advanced(),
            Field(gt=0, description="pictures of a folder a second, as filmed; without it no times"),
        ] = None,
    ) -> values.Video:
        from fopru_graph.lvlm.inputs.video import load_video

        return load_video(path, frames, fps, folder_fps)

    def fingerprint(self, path: str = "") -> str:
        """The frames' content, so that a changed video is encoded again."""
        from fopru_graph.lvlm.inputs.video import fingerprint

        return fingerprint(path)
