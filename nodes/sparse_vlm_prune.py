from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio, Tokens


@node(category="prune")
class SparseVLMPrune(Node):
    """From a decoder layer on, keep the visual tokens that the question looks at (SparseVLM, arXiv 2410.04417).

    Acts inside the language model and reads the text: tokens of the question that have to do with the picture rate by
    their attention in the layer below. Part of what is dropped comes back, clustered and averaged. Published: three
    stages, after layers 2, 6 and 15 of 32, each with a fixed number of tokens.

    Deviations: the budget includes the averaged tokens, which published numbers leave out; these stay at the place of
    their cluster's centre, where the code moves them behind the kept ones; the question's raters are found anew from
    the visual tokens that reach the layer; density counts the five nearest neighbours.
    """

    def run(
        self,
        layer: Layer = 3,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        recycle: Annotated[
            float,
            Field(ge=0, le=1, description="share of the dropped tokens that comes back; 0: none"),
        ] = 0.3,
    ) -> values.InLLMPruner:
        from fopru_graph.pruning.sparsevlm import SparseVLM

        rule = SparseVLM(recycle)
        merge = rule.merge if recycle else None
        return values.InLLMPruner(rule.score, layer, ratio if tokens is None else None, tokens, merge)
