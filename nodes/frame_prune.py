from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens


@node(category="prune")
class FramePrune(Node):
    """Keep each frame's most significant tokens, more in frames unlike the rest (VidCom², arXiv 2505.14454).

    The budget is the video's. Of T frames, frame t gets the share (1 + σ_t − 1 / T) / T, where σ is a softmax of how
    little its tokens are like the video's mean token. Any scorer serves. Published default: a quarter.

    Deviations: the budget is met exactly, a frame keeps one token at least where there are enough, and what a full
    frame cannot take goes to the others. The temperature is ours to choose: no source that we know names it but the
    authors' code.
    """

    def run(
        self,
        features: values.VisionFeatures,
        significance: values.Significance,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        temperature: Annotated[
            float, Field(gt=0, description="the smaller, the more for frames unlike the rest")
        ] = 0.01,
    ) -> values.Selection:
        from fopru_graph.pruning.frames import share_out
        from fopru_graph.pruning.select import rank_prune

        budget = values.Budget(tuple(share_out(features, ratio, tokens, temperature)))
        return rank_prune(significance, None, None, budget=budget)
