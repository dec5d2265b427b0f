from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens


@node(category="prune")
class TileBudget(Node):
    """Share a picture's budget out over its overview and its tiles by where the overview's attention lies (HiRED).

    Paper: arXiv 2408.10945, AAAI'25. Acts before the language model; reads no text. The published scores are the CLS
    token's attention in the first encoder layer. The overview keeps a share of the budget, the tiles the rest, each in
    proportion to how many of the overview's best tokens lie where it stands. Of a picture that is not cut, and of a
    video, each tile keeps the ratio. Published: ratio 0.2, overview 0.5.

    Deviations: the published code (hasanar1f/HiRED, 502d6dd) counts contiguous chunks of the overview's sequence, which
    for 2 × 2 tiles are bands of rows; here a tile's part is two-dimensional, and padding takes none. Budgets are of
    visual tokens without padding. What rounding and full tiles leave over is lost there; here it is handed on, and the
    budget is spent exactly.
    """

    def run(
        self,
        significance: values.Significance,
        ratio: Ratio = 0.2,
        tokens: Annotated[
            Tokens, Field(description="number of visual tokens to keep of a picture; wins over ratio")
        ] = None,
        overview: Annotated[float, Field(ge=0, le=1, description="share of a picture's budget for its overview")] = 0.5,
    ) -> values.Budget:
        from fopru_graph.pruning.hired import hired_budgets

        return values.Budget(hired_budgets(significance, ratio, tokens, overview))
