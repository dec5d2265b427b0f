from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio, Tokens


@node(category="prune")
class FastVPrune(Node):
    """From a decoder layer on, keep the visual tokens that the last prompt token attends to most (FastV).

    FastV's published R is the share dropped: R = 1 − ratio. Its published layers are 2 (R = 50 %) and, in its
    demonstration, 3 (R = 75 %) of 32.
    """

    def run(self, layer: Layer = 3, ratio: Ratio = 0.5, tokens: Tokens = None) -> values.InLLMPruner:
        from fopru_graph.pruning.in_llm import last_token_attention

        return values.InLLMPruner(last_token_attention, layer, ratio if tokens is None else None, tokens)
