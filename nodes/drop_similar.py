from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Ratio, Start, Tokens


@node(category="prune")
class DropSimilar(Node):
    """Drop visual tokens that resemble others, round by round, until the budget is met (VisPruner, 2412.01818 v2).

    VisPruner keeps one part of k by CLS attention (wire it to start) and the rest by this rule, on the features before
    the projector, tile by tile. It needs no text; the scores only order the tokens for the pairing. Deviations: an odd
    number of tokens is split into a longer even and a shorter odd half, where the published code fails; tiles of more
    than 576 tokens lose one of 72 a round instead of 8.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        budget: BudgetInput = None,
        start: Start = None,
    ) -> values.Selection:
        from fopru_graph.pruning.batches import choose_in_batches
        from fopru_graph.pruning.select import check_tokens
        from fopru_graph.pruning.vispruner import fill_up_unlike

        check_tokens(features, significance)
        return choose_in_batches(features, significance.scores, ratio, tokens, "tile", budget, start, fill_up_unlike)
