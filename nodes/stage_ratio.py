from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio


@node(category="flow")
class StageRatio(Node):
    """Share a ratio out to pruning stages that follow each other: each of n keeps the n-th root of it.

    A quarter is a half of a half. Wire `ratio` of every stage to this, and this to the pipeline's input `ratio`.
    """

    def run(
        self,
        ratio: Annotated[
            Ratio | None,
            Field(description="share of the visual tokens left behind the last stage; empty: each has otherwise"),
        ],
        stages: Annotated[int, Field(ge=1, description="number of stages that share it")],
        otherwise: Annotated[Ratio, Field(description="what the stage keeps where there is no ratio")] = 1.0,
    ) -> float:
        return otherwise if ratio is None else ratio ** (1 / stages)
