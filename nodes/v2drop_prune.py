from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio, Tokens


@node(category="prune")
class V2DropPrune(Node):
    """From a decoder layer on, keep the visual tokens that the layer below changed most (V2Drop, arXiv 2509.01552).

    The change is the L2 distance of a token's hidden states before and after that layer; no attention, no text. V2Drop
    cuts before layers 3, 17 and 22 of 32 (wire a Schedule) and drops 50, 50 and all of the rest in its code, other
    shares for each budget in its paper. Here a budget keeps at least one token.
    """

    def run(self, layer: Layer = 3, ratio: Ratio = 0.5, tokens: Tokens = None) -> values.InLLMPruner:
        from fopru_graph.pruning.variation import variation

        return values.InLLMPruner(variation, layer, ratio if tokens is None else None, tokens, reads=(-2,))
