from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio, Tokens


@node(category="prune")
class DartPrune(Node):
    """From a decoder layer on, keep the visual tokens least like a few pivots (DART, arXiv 2502.11494).

    Acts inside the language model; reads keys and hidden states of the layer below, so any attention kernel serves, and
    the text only through its pivots. Published: before layer 2, 4 + 4 pivots, kept = 4 + 8 · t.

    Deviations, all for a definite result: the budget is spent exactly, where t is rounded down as published; pivots
    take their turns visual ones first and strongest first, where the code's order is that of a set's hashes; text
    behind the first picture gives pivots, of several pictures too; cosines are those of the hidden states without the
    decoder's last norm, of which a pruner sees nothing.
    """

    def run(
        self,
        layer: Layer = 2,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        visual_pivots: Annotated[int, Field(ge=1, description="strongest visual tokens")] = 4,
        text_pivots: Annotated[int, Field(ge=0, description="strongest text tokens behind the picture")] = 4,
    ) -> values.InLLMPruner:
        from fopru_graph.pruning.dart import least_duplicated

        score = partial(least_duplicated, visual_pivots=visual_pivots, text_pivots=text_pivots)
        return values.InLLMPruner(score, layer, ratio if tokens is None else None, tokens)
