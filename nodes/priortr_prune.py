from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio, Tokens


@node(category="prune")
class PriorTRPrune(Node):
    """From a decoder layer on, keep the visual tokens that the question adds most attention to (PriorTR).

    arXiv 2606.24156. The score is P · log(P / Q): P is the attention of the last prompt token, as in FastV, Q that of
    the token right behind the images, which cannot see the question. Layer 3 is that of the examples in the published
    docs/RUNNER.md. The published code probes with the end-of-vision token or a newline; here it is whatever the
    prompt has there. Text before the last image counts into Q, and where prompt tokens see each other both ways
    (PaliGemma) so does the question.
    """

    def run(self, layer: Layer = 3, ratio: Ratio = 0.25, tokens: Tokens = None) -> values.InLLMPruner:
        from fopru_graph.pruning.prior import prior_corrected_attention

        return values.InLLMPruner(prior_corrected_attention, layer, ratio if tokens is None else None, tokens)
