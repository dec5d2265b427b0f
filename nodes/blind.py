"""Blind: no picture."""

from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class Blind(Node):
    """Drop every visual token: what the language model answers from the question alone.

    What a prompt has around a picture's tokens, such as markers of its beginning and end, stays.
    """

    def run(self, tokens: values.VisualTokens) -> values.VisualTokens:
        return replace(
            tokens,
            embeddings=tuple(rows[:0] for rows in tokens.embeddings),
            origin=tuple(rows[:0] for rows in tokens.origin),
            keep_positions=tuple(rows[:0] for rows in tokens.keep_positions),
            deepstack=tuple(tuple(layer[:0] for layer in image) for image in tokens.deepstack),
        )
