from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Ratio, Tokens


@node(category="prune")
class WindowPrune(Node):
    """Keep equally many visual tokens in every window of a tile's grid: the most significant (VScan's local half).

    Paper: arXiv 2505.22654, TMLR'26. Acts before the language model, tile by tile; reads no text. Each of W windows
    keeps ⌊K / W⌋ of a budget of K, so less than the budget is spent; RankPrune fills up what it starts with. Published:
    half of all kept tokens, by the CLS token's attention in encoder layer 5 of 24. Half of an odd number is rounded up.
    The published windows are 6 × 6 tokens of a 24 × 24 grid: 4 along a side, which is what other grids have here too.
    """

    def run(
        self,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        budget: BudgetInput = None,
        windows: Annotated[int, Field(ge=1, description="windows along each side of a tile's grid")] = 4,
    ) -> values.Selection:
        from fopru_graph.pruning.groups import window_select
        from fopru_graph.pruning.select import kept_counts, selection_of

        counts = kept_counts([len(scores) for scores in significance.scores], ratio, tokens, budget)
        tiles = zip(significance.scores, significance.grids, counts, strict=True)
        return selection_of(
            [window_select(scores, grid, windows, count) for scores, grid, count in tiles], significance
        )
