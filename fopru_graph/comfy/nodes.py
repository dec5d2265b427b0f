"""The node types that exist on a canvas alone, where YAML has a way of writing instead."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="load")
class Pictures(Node):
    """Several pictures as one list: a batch, or the pictures of one question. YAML writes `image: [$a, $b]`."""

    def run(self, pictures: list[values.Image]) -> list[values.Image]:
        """Give the pictures as they are, in the order of their sockets."""
        return pictures
