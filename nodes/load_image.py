from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import InputPath, Node, Takes, node


def _is_picture(value: object) -> bool:
    from fopru_graph.lvlm.inputs.pictures import is_picture

    return is_picture(value)


@node(category="load")
class LoadImage(Node):
    """Read a picture file as RGB, turned as its EXIF data says."""

    def run(
        self,
        path: Annotated[
            str,
            InputPath(kind="image"),
            Takes(_is_picture),
            Field(description="a file, or demo:NAME for a bundled picture"),
        ],
    ) -> values.Image:
        from fopru_graph.lvlm.inputs.pictures import to_picture

        return to_picture(path)

    def fingerprint(self, path: str = "") -> str:
        """The content of the file or picture, so that a changed one is encoded again."""
        from fopru_graph.lvlm.inputs.pictures import fingerprint

        return fingerprint(path)
