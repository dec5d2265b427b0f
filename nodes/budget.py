from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, Outputs, node
from fopru_graph.nodes._inputs import Ratio, Tokens


class Budgets(Outputs):
    """How many visual tokens of each tile are kept in all, and how many of them by the first of two rules."""

    whole: values.Budget
    part: values.Budget


@node(category="prune")
class Budget(Node):
    """Set how many visual tokens are kept, for several pruning nodes that share them: tile by tile."""

    def run(
        self,
        features: values.VisionFeatures,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        share: Annotated[float, Field(ge=0, le=1, description="share of the kept tokens in part, rounded")] = 0.5,
    ) -> Budgets:
        from fopru_graph.pruning.select import tile_budgets

        whole, part = tile_budgets(features.counts, ratio, tokens, share)
        return Budgets(whole=whole, part=part)
