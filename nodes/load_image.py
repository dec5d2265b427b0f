from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import InputPath, Node, node


@node(category="load")
class LoadImage(Node):
    """Read a picture file as RGB, turned as its EXIF data says."""

    def run(
        self, path: Annotated[str, InputPath(), Field(description="a file, or demo:NAME for a bundled picture")]
    ) -> values.Image:
        from fopru_graph.lvlm.inputs.images import load_image

        return load_image(path)

    def fingerprint(self, path: str = "") -> str:
        """The file's content, so that a changed picture is encoded again."""
        from fopru_graph.lvlm.inputs.images import fingerprint

        return fingerprint(path)
