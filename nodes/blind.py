from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class Blind(Node):
    """Drop every visual token, so that the language model answers from the question alone.

    Markers around a picture's tokens, such as those of its beginning and end, stay in the prompt.
    """

    def run(self, tokens: values.VisualTokens) -> values.VisualTokens:
        return replace(
            tokens,
            embeddings=tuple(image[:0] for image in tokens.embeddings),
            origin=tuple(image[:0] for image in tokens.origin),
            keep_positions=tuple(image[:0] for image in tokens.keep_positions),
            tile_counts=tuple((0,) * len(image) for image in tokens.tile_counts),
            newlines=(),
            deepstack=tuple(tuple(layer[:0] for layer in image) for image in tokens.deepstack),
        )
