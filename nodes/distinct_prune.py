from __future__ import annotations

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Ratio, Start, Tokens


@node(category="prune")
class DistinctPrune(Node):
    """Fill a budget up with visual tokens that resemble each other least (VisPruner, arXiv 2412.01818).

    Before the projector, tile by tile, without text. Tokens are ordered by significance, VisPruner's by the attention
    of CLS; in each round up to 8 at even places, those most similar to any at an odd place, are dropped. VisPruner
    starts with the half of the budget that CLS attends to most.

    Deviations: lists of odd length are split too, where the published code fails; tiles are pruned each by itself,
    where it flattens a batch into one row; the important half of an odd budget is rounded up, not down.
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
        from fopru_graph.pruning.select import budget_counts, selection_of
        from fopru_graph.pruning.vispruner import distinct_prune

        lengths = list(map(len, significance.scores))
        if features.counts != tuple(lengths):
            raise UserError(
                "features and significance were made from different tokens", "wire them to the same VisionEncode"
            )
        counts = budget_counts(lengths, ratio, tokens, budget, start)
        tiles = [tile.features for tile in features.tiles]
        scores = [scores.to(tile.device) for scores, tile in zip(significance.scores, tiles, strict=True)]
        begun = [each.new_zeros(0).long() for each in scores] if start is None else start.indices
        first = [kept.to(tile.device) for kept, tile in zip(begun, tiles, strict=True)]
        return selection_of(distinct_prune(tiles, scores, first, counts), significance, start)
